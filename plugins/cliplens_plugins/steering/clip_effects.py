"""Steering CLIP itself, measured: what moves in zero-shot and retrieval, and what else moves."""

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from cliplens.tasks import nearest_prototype
from cliplens.tasks import retrieval as retrieval  # noqa: PLC0414  exported here too

Banks = Mapping[str, Float[Tensor, "value d_embed"]]
"""Attribute -> one text embedding per value. Values of one attribute must share their contexts to compare fairly."""


def zero_shot(embeddings: Float[Tensor, "sample d_embed"], banks: Banks) -> dict[str, Int[np.ndarray, " sample"]]:
    """The value of each attribute whose text is nearest, by cosine."""
    return {name: nearest_prototype(embeddings, bank).cpu().numpy() for name, bank in banks.items()}


def cosine_shift(
    before: Float[Tensor, "sample d_embed"], after: Float[Tensor, "sample d_embed"], banks: Banks
) -> dict[str, Float[np.ndarray, " value"]]:
    """Mean change of the cosine with each value's text: what moves (the target) and what else moves (all others)."""
    moved = F.normalize(after, dim=-1) - F.normalize(before, dim=-1)
    return {name: (moved @ F.normalize(bank, dim=-1).T).mean(0).cpu().numpy() for name, bank in banks.items()}


@torch.no_grad()
def mean_prompts(embeddings: Float[Tensor, "value context d_embed"]) -> Float[Tensor, "value d_embed"]:
    """One embedding per value: the mean over contexts all values share."""
    return F.normalize(F.normalize(embeddings, dim=-1).mean(1), dim=-1)
