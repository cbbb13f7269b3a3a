"""Steering CLIP itself, measured: what moves in zero-shot and retrieval, and what else moves."""

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

Banks = Mapping[str, Float[Tensor, "value d_embed"]]
"""Attribute -> one text embedding per value. Values of one attribute must share their contexts to compare fairly."""


def zero_shot(embeddings: Float[Tensor, "sample d_embed"], banks: Banks) -> dict[str, Int[np.ndarray, " sample"]]:
    """The value of each attribute whose text is nearest, by cosine."""
    unit = F.normalize(embeddings, dim=-1)
    return {name: (unit @ F.normalize(bank, dim=-1).T).argmax(-1).cpu().numpy() for name, bank in banks.items()}


def cosine_shift(
    before: Float[Tensor, "sample d_embed"], after: Float[Tensor, "sample d_embed"], banks: Banks
) -> dict[str, Float[np.ndarray, " value"]]:
    """Mean change of the cosine with each value's text: what moves (the target) and what else moves (all others)."""
    moved = F.normalize(after, dim=-1) - F.normalize(before, dim=-1)
    return {name: (moved @ F.normalize(bank, dim=-1).T).mean(0).cpu().numpy() for name, bank in banks.items()}


def retrieval(
    images: Float[Tensor, "pair d_embed"], captions: Float[Tensor, "pair d_embed"], ks: tuple[int, ...] = (1, 5, 10)
) -> dict[str, float]:
    """R@k both ways, in [0, 1]: the share of samples whose own partner is among the k nearest by cosine."""
    scores = F.normalize(images, dim=-1) @ F.normalize(captions, dim=-1).T
    own = scores.diagonal()
    found: dict[str, float] = {}
    for way, table in (("i2t", scores), ("t2i", scores.T)):
        rank = (table > own[:, None]).sum(1)
        found |= {f"{way}_r{k}": float((rank < k).double().mean()) for k in ks}
    return found


@torch.no_grad()
def mean_prompts(embeddings: Float[Tensor, "value context d_embed"]) -> Float[Tensor, "value d_embed"]:
    """One embedding per value: the mean over contexts all values share."""
    return F.normalize(F.normalize(embeddings, dim=-1).mean(1), dim=-1)
