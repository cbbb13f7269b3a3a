"""Downstream tasks of image-text models: retrieval, contrastive loss and zero-shot classification."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor

from cliplens.errors import InputError

TIE = 1e-12
"""Cosines that differ by less are tied: the rounding of a matrix product in float64."""


def retrieval(
    image: Float[Tensor, "pair d"], text: Float[Tensor, "pair d"], at: Sequence[int] = (1, 5, 10)
) -> dict[str, float]:
    """Return R@k both ways: the share of images whose own caption is among the k nearest, and of captions likewise.

    Ties count as misses: a sample that is tied with the own partner ranks before it. So embeddings that are all equal
    find nothing.

    Args:
        image: embeddings of the images.
        text: embeddings of the captions, in step. Rows are compared by cosine.
        at: values of k.

    Returns:
        `image_to_text_r1`, `text_to_image_r1`, ..., each in [0, 1].

    Raises:
        InputError: the numbers of images and captions differ, or there are none.

    >>> rows = torch.eye(3)
    >>> retrieval(rows, rows[[0, 2, 1]], at=(1,))
    {'image_to_text_r1': 0.3333333333333333, 'text_to_image_r1': 0.3333333333333333}
    """
    _check_pairs(image, text)
    similar = _cosines(image, text)
    figures: dict[str, float] = {}
    for name, rows in (("image_to_text", similar), ("text_to_image", similar.T)):
        own = rows.diagonal()[:, None]
        ahead = (rows >= own - TIE).sum(1) - 1
        figures |= {f"{name}_r{k}": float((ahead < k).double().mean()) for k in at}
    return figures


def contrastive_loss(
    image: Float[Tensor, "pair d"], text: Float[Tensor, "pair d"], scale: float, bias: float | None = None
) -> float:
    """Return the contrastive loss of the pairs against each other: CLIP's, or SigLIP's where a bias is given.

    Args:
        image: unit-norm embeddings of the images.
        text: unit-norm embeddings of the captions, in step.
        scale: the logit scale of the model, exponentiated. Logits are `scale * cosine + bias`.
        bias: the logit bias of the model, where it has one.

    Returns:
        Mean loss per pair, in nats, at least 0.

    Raises:
        InputError: the numbers of images and captions differ, or there are none.

    Source: Radford et al., arXiv 2103.00020; with a bias Zhai et al., arXiv 2303.15343.

    >>> rows = torch.eye(2)
    >>> round(contrastive_loss(rows, rows, 10.0), 6)
    4.5e-05
    """
    _check_pairs(image, text)
    logits = scale * image.double() @ text.double().T
    if bias is not None:
        own = 2 * torch.eye(len(logits), dtype=torch.float64, device=logits.device) - 1
        return float(-torch.nn.functional.logsigmoid(own * (logits + bias)).sum() / len(logits))
    own = torch.arange(len(logits), device=logits.device)
    loss = torch.nn.functional.cross_entropy
    return float(loss(logits, own) + loss(logits.T, own)) / 2


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
    similar = _cosines(image, prototypes)
    own = similar.gather(1, labels.long()[:, None])
    return float(((similar >= own - TIE).sum(1) == 1).double().mean())


def nearest_prototype(image: Float[Tensor, "image d"], prototypes: Float[Tensor, "class d"]) -> Int64[Tensor, " image"]:
    """Return the class whose prototype is nearest to each image by cosine, the first one of equals.

    >>> nearest_prototype(torch.eye(2), torch.eye(2)[[1, 0]])
    tensor([1, 0])
    """
    unit = torch.nn.functional.normalize
    return (unit(image, dim=-1) @ unit(prototypes, dim=-1).T).argmax(-1)


def _cosines(image: Tensor, text: Tensor) -> Float[Tensor, "image text"]:
    unit = torch.nn.functional.normalize
    return unit(image.double(), dim=1) @ unit(text.double(), dim=1).T


def _check_pairs(image: Tensor, text: Tensor) -> None:
    if len(image) != len(text) or not len(image):
        raise InputError(
            expected="as many images as captions, at least one",
            found=f"{len(image)} images and {len(text)} captions",
            fix="give row i of both for pair i",
        )
