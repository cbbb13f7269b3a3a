"""Measure effects of steering on CLIP embeddings: zero-shot classes, retrieval, and changes of cosines with texts."""

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from cliplens.tasks import nearest_prototype
from cliplens.tasks import retrieval as retrieval  # noqa: PLC0414  exported here too

Banks = Mapping[str, Float[Tensor, "value d_embed"]]
"""Text embeddings of the values of each attribute. All values of an attribute must use the same prompt templates."""


def zero_shot(embeddings: Float[Tensor, "sample d_embed"], banks: Banks) -> dict[str, Int[np.ndarray, " sample"]]:
    """Return, for each attribute, the index of the value whose text has the highest cosine with each sample."""
    return {name: nearest_prototype(embeddings, bank).cpu().numpy() for name, bank in banks.items()}


def cosine_shift(
    before: Float[Tensor, "sample d_embed"], after: Float[Tensor, "sample d_embed"], banks: Banks
) -> dict[str, Float[np.ndarray, " value"]]:
    """Return, for each attribute, the mean change of the cosine with the text of each value, in [-2, 2]."""
    moved = F.normalize(after, dim=-1) - F.normalize(before, dim=-1)
    return {name: (moved @ F.normalize(bank, dim=-1).T).mean(0).cpu().numpy() for name, bank in banks.items()}


@torch.no_grad()
def mean_prompts(embeddings: Float[Tensor, "value context d_embed"]) -> Float[Tensor, "value d_embed"]:
    """Return one unit-norm embedding per value: the mean over the prompt templates."""
    return F.normalize(F.normalize(embeddings, dim=-1).mean(1), dim=-1)
