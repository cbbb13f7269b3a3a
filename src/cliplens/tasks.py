"""Downstream tasks of image-text models: retrieval, contrastive loss and zero-shot classification."""

import hashlib
from collections.abc import Hashable, Sequence
from functools import partial

import torch
from jaxtyping import Bool, Float, Int, Int64, Shaped
from torch import Tensor

from cliplens.errors import InputError

TIE = 1e-12
"""Largest difference of tied cosines: the rounding of a matrix product in float64."""


def retrieval(
    image: Float[Tensor, "pair d"],
    text: Float[Tensor, "pair d"],
    at: Sequence[int] = (1, 5, 10),
    *,
    image_ids: Sequence[Hashable] | None = None,
    caption_ids: Sequence[Hashable] | None = None,
) -> dict[str, float]:
    """Return R@k both ways, as COCO reports it: the share of images with a right caption among the k nearest captions,
    and of captions with a right image among the k nearest images.

    Every distinct image and caption is one query and one candidate. A caption is correct if it forms a pair with the
    image. Ties count as misses: a wrong candidate tied with the best correct one ranks before it. So R@k of embeddings
    that are all equal is 0.

    Args:
        image: embeddings of the images.
        text: embeddings of the captions, in step. Rows are compared by cosine.
        at: values of k.
        image_ids: equal for pairs that show the same picture; None: all pictures differ.
        caption_ids: equal for pairs that say the same text; None: all texts differ.

    Returns:
        `image_to_text_r1`, `text_to_image_r1`, ..., each in [0, 1].

    Raises:
        InputError: the numbers of images, captions or ids differ, or there are none.

    >>> rows = torch.eye(3)
    >>> retrieval(rows, rows[[0, 2, 1]], at=(1,))
    {'image_to_text_r1': 0.3333333333333333, 'text_to_image_r1': 0.3333333333333333}
    """
    hits = retrieval_hits(image, text, at, image_ids=image_ids, caption_ids=caption_ids)
    return {name: float(found.double().mean()) for name, found in hits.items()}


def retrieval_hits(
    image: Float[Tensor, "pair d"],
    text: Float[Tensor, "pair d"],
    at: Sequence[int] = (1,),
    *,
    image_ids: Sequence[Hashable] | None = None,
    caption_ids: Sequence[Hashable] | None = None,
) -> dict[str, Bool[Tensor, " query"]]:
    """Return a mask of the queries with a correct answer among the k nearest. `retrieval` returns its mean.

    Args:
        image: embeddings of the images.
        text: embeddings of the captions, in step.
        at: values of k.
        image_ids: equal for pairs that show the same picture; None: all pictures differ.
        caption_ids: equal for pairs that say the same text; None: all texts differ.

    Returns:
        `image_to_text_r1`: one entry per distinct image; `text_to_image_r1`: one per distinct caption; ...

    Raises:
        InputError: the numbers of images, captions or ids differ, or there are none.

    >>> retrieval_hits(torch.eye(3), torch.eye(3)[[0, 2, 1]])["image_to_text_r1"]
    tensor([ True, False, False])
    """
    _check_pairs(image, text, image_ids, caption_ids)
    images, captions = _groups(image_ids, len(image)), _groups(caption_ids, len(text))
    right = _right(images, captions).to(image.device)
    similar = _cosines(image[_first_of(images)], text[_first_of(captions)])
    hits: dict[str, Tensor] = {}
    for name, rows, correct in (("image_to_text", similar, right), ("text_to_image", similar.T, right.T)):
        best = rows.masked_fill(~correct, -torch.inf).amax(1, keepdim=True)
        ahead = ((rows >= best - TIE) & ~correct).sum(1)
        hits |= {f"{name}_r{k}": ahead < k for k in at}
    return hits


def contrastive_loss(
    image: Float[Tensor, "pair d"],
    text: Float[Tensor, "pair d"],
    scale: float,
    bias: float | None = None,
    *,
    image_ids: Sequence[Hashable] | None = None,
    caption_ids: Sequence[Hashable] | None = None,
) -> float:
    """Return the contrastive loss of the pairs against each other: CLIP's, or SigLIP's where a bias is given.

    Other captions of the same picture, and captions with the same text, are not negatives: they are left out.

    Args:
        image: unit-norm embeddings of the images.
        text: unit-norm embeddings of the captions, in step.
        scale: the logit scale of the model, exponentiated. Logits are `scale * cosine + bias`.
        bias: the logit bias of the model, where it has one.
        image_ids: equal for pairs that show the same picture; None: all pictures differ.
        caption_ids: equal for pairs that say the same text; None: all texts differ.

    Returns:
        Mean loss per pair, in nats, at least 0.

    Raises:
        InputError: the numbers of images, captions or ids differ, or there are none.

    Source: Radford et al., arXiv 2103.00020; with a bias Zhai et al., arXiv 2303.15343.

    >>> rows = torch.eye(2)
    >>> round(contrastive_loss(rows, rows, 10.0), 6)
    4.5e-05
    """
    losses = contrastive_losses(image, text, scale, bias, image_ids=image_ids, caption_ids=caption_ids)
    return float(losses.mean())


def contrastive_losses(
    image: Float[Tensor, "pair d"],
    text: Float[Tensor, "pair d"],
    scale: float,
    bias: float | None = None,
    *,
    image_ids: Sequence[Hashable] | None = None,
    caption_ids: Sequence[Hashable] | None = None,
) -> Float[Tensor, " pair"]:
    """Return the loss of each pair, in nats. `contrastive_loss` returns the mean, and has the same arguments.

    With a bias, the loss of a pair is the loss of its image with all captions.

    Raises:
        InputError: the numbers of images, captions or ids differ, or there are none.

    >>> contrastive_losses(torch.eye(2), torch.eye(2), 0.0)
    tensor([0.6931, 0.6931], dtype=torch.float64)
    """
    _check_pairs(image, text, image_ids, caption_ids)
    logits = scale * image.detach().double() @ text.detach().double().T
    others = other_right_pairs(len(image), image_ids, caption_ids).to(logits.device)
    if bias is not None:
        own = 2 * torch.eye(len(logits), dtype=torch.float64, device=logits.device) - 1
        terms = torch.nn.functional.logsigmoid(own * (logits + bias))
        return -terms.masked_fill(others, 0.0).sum(1)
    logits = logits.masked_fill(others, -torch.inf)
    own = torch.arange(len(logits), device=logits.device)
    loss = partial(torch.nn.functional.cross_entropy, reduction="none")
    return (loss(logits, own) + loss(logits.T, own)) / 2


def other_right_pairs(
    n: int, image_ids: Sequence[Hashable] | None = None, caption_ids: Sequence[Hashable] | None = None
) -> Bool[Tensor, "image caption"]:
    """Return a mask of the captions of other pairs that are correct for each image, and so not negatives.

    >>> other_right_pairs(2, caption_ids=["a dog", "a dog"])
    tensor([[False,  True],
            [ True, False]])
    """
    images, captions = _groups(image_ids, n), _groups(caption_ids, n)
    others = _right(images, captions)[images][:, captions]
    return others & ~torch.eye(n, dtype=torch.bool)


def ids_of_rows(rows: Shaped[Tensor, "row ..."]) -> list[bytes]:
    """Return an id per row that is equal for equal rows, for images or tokens whose pairs are unknown.

    >>> ids = ids_of_rows(torch.tensor([[1, 2], [3, 4], [1, 2]]))
    >>> ids[0] == ids[2], ids[0] == ids[1]
    (True, False)
    """
    flat = rows.detach().cpu().flatten(1).contiguous()
    return [hashlib.blake2b(row.view(torch.uint8).numpy().tobytes(), digest_size=16).digest() for row in flat]


def zero_shot(
    image: Float[Tensor, "image d"], prototypes: Float[Tensor, "class d"], labels: Int[Tensor, " image"]
) -> float:
    """Return the accuracy of zero-shot classification: the share of images nearest to the prototype of their own class.

    Ties with another class count as misses, as in `retrieval`.

    Args:
        image: embeddings of the images.
        prototypes: one embedding per class. Rows are compared by cosine.
        labels: the class of each image.

    Returns:
        Accuracy in [0, 1].

    >>> zero_shot(torch.eye(2), torch.eye(2), torch.tensor([0, 0]))
    0.5
    """
    return float(zero_shot_hits(image, prototypes, labels).double().mean())


def zero_shot_hits(
    image: Float[Tensor, "image d"], prototypes: Float[Tensor, "class d"], labels: Int[Tensor, " image"]
) -> Bool[Tensor, " image"]:
    """Return a mask of the images nearest to the prototype of their own class. `zero_shot` returns its mean.

    >>> zero_shot_hits(torch.eye(2), torch.eye(2), torch.tensor([0, 0]))
    tensor([ True, False])
    """
    similar = _cosines(image, prototypes)
    own = similar.gather(1, labels.long()[:, None])
    return (similar >= own - TIE).sum(1) == 1


def nearest_prototype(image: Float[Tensor, "image d"], prototypes: Float[Tensor, "class d"]) -> Int64[Tensor, " image"]:
    """Return the class of the nearest prototype of each image by cosine; the first one in case of ties.

    >>> nearest_prototype(torch.eye(2), torch.eye(2)[[1, 0]])
    tensor([1, 0])
    """
    unit = torch.nn.functional.normalize
    return (unit(image, dim=-1) @ unit(prototypes, dim=-1).T).argmax(-1)


def _cosines(image: Tensor, text: Tensor) -> Float[Tensor, "image text"]:
    unit = torch.nn.functional.normalize
    return unit(image.double(), dim=1) @ unit(text.double(), dim=1).T


def _groups(ids: Sequence[Hashable] | None, n: int) -> Int64[Tensor, " pair"]:
    """Number the distinct ids in order of appearance; without ids, every row has its own number."""
    if ids is None:
        return torch.arange(n)
    number: dict[Hashable, int] = {}
    return torch.tensor([number.setdefault(i, len(number)) for i in ids])


def _first_of(groups: Int64[Tensor, " pair"]) -> Int64[Tensor, " group"]:
    """Return the first row of each group."""
    seen = torch.cummax(groups, 0).values
    new = torch.ones_like(groups, dtype=torch.bool)
    new[1:] = seen[1:] > seen[:-1]
    return new.nonzero()[:, 0]


def _right(images: Int64[Tensor, " pair"], captions: Int64[Tensor, " pair"]) -> Bool[Tensor, "image caption"]:
    """Return a matrix that is True for images and captions that form a pair."""
    right = torch.zeros(int(images.max()) + 1, int(captions.max()) + 1, dtype=torch.bool)
    right[images, captions] = True
    return right


def _check_pairs(
    image: Tensor, text: Tensor, image_ids: Sequence[Hashable] | None, caption_ids: Sequence[Hashable] | None
) -> None:
    counts = {len(image), len(text), *(len(ids) for ids in (image_ids, caption_ids) if ids is not None)}
    if len(counts) > 1 or not len(image):
        ids = "".join(f" and {len(i)} {n}" for i, n in ((image_ids, "image ids"), (caption_ids, "caption ids")) if i)
        raise InputError(
            expected="as many images as captions, at least one",
            found=f"{len(image)} images and {len(text)} captions{ids}",
            fix="pass row i of both for pair i",
        )
