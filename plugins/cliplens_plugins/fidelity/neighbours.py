"""The nearest latents of each latent, by the cosine of their decoder rows."""

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

NEIGHBOURS = 5
_BLOCK = 1024


def neighbours(
    decoder: Float[Tensor, "d_sae d_in"], count: int = NEIGHBOURS
) -> tuple[Int64[np.ndarray, "d_sae neighbour"], Float[np.ndarray, "d_sae neighbour"]]:
    """Per latent its nearest others, nearest first, and the cosine with each, in [-1, 1].

    Fewer than `count` where there are fewer other latents. Never more than a block of the matrix of cosines is held.
    """
    unit = F.normalize(decoder.detach().double(), dim=1)
    count = min(count, len(unit) - 1)
    found: list[tuple[np.ndarray, np.ndarray]] = []
    for start in range(0, len(unit), _BLOCK):
        cosines = unit[start : start + _BLOCK] @ unit.T
        rows = torch.arange(len(cosines), device=cosines.device)
        cosines[rows, rows + start] = -torch.inf
        best = cosines.topk(count, dim=1)
        found.append((best.indices.cpu().numpy(), best.values.clamp(-1, 1).cpu().numpy()))
    nearest, cosine = zip(*found, strict=True)
    return np.concatenate(nearest).astype(np.int64), np.concatenate(cosine)
