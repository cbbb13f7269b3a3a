"""What images and captions still find of each other: retrieval, contrastive loss, zero-shot accuracy."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cliplens.errors import InputError


def retrieval(
    image: Float[Tensor, "pair d"], text: Float[Tensor, "pair d"], at: Sequence[int] = (1, 5, 10)
) -> dict[str, float]:
    """R@k both ways: the share of images whose own caption is among the k nearest, and of captions likewise.

    Ties with the own pair count as misses, so that embeddings that are all alike find nothing.

    Args:
        image: unit-norm embeddings.
        text: unit-norm embeddings of the captions, in step.
        at: which k.

    Returns:
        `image_to_text_r1`, `text_to_image_r1`, ..., each in [0, 1].
    """
    if len(image) != len(text) or not len(image):
        raise InputError(
            expected="as many images as captions, at least one", found=f"{len(image)} and {len(text)}", fix="give pairs"
        )
    similar = image.double() @ text.double().T
    figures: dict[str, float] = {}
    for name, rows in (("image_to_text", similar), ("text_to_image", similar.T)):
        own = rows.diagonal()[:, None]
        ahead = (rows >= own).sum(1) - 1
        figures |= {f"{name}_r{k}": float((ahead < k).double().mean()) for k in at}
    return figures


def contrastive_loss(
    image: Float[Tensor, "pair d"], text: Float[Tensor, "pair d"], scale: float, bias: float | None = None
) -> float:
    """CLIP's loss of the pairs against each other, with the model's own logit scale, in nats; SigLIP's given a bias.

    Args:
        image: unit-norm embeddings.
        text: unit-norm embeddings, in step.
        scale: the model's logit scale, exponentiated.
        bias: the model's logit bias, if it has one.
    """
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
    """Share of images nearest to the prototype of their own class; ties with another class count as misses."""
    similar = image.double() @ prototypes.double().T
    own = similar.gather(1, labels.long()[:, None])
    return float(((similar >= own).sum(1) == 1).double().mean())
