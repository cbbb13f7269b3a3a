"""Match the latents of two dictionaries one to one by their decoder rows (Paulo and Belrose, arXiv 2501.16615).

Matching picks the largest of many cosines, so it is above 0 by chance: the chance level is that of `mixtures` of rows.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor


@dataclass(frozen=True)
class Matching:
    """A one-to-one matching of the latents of two dictionaries."""

    partner: Int[np.ndarray, " d_sae"]
    """Index of the other dictionary's latent matched with each latent; -1 if none is left."""
    cosine: Float[np.ndarray, " d_sae"]
    """Cosine of the two decoder rows; nan if none is left."""


def matched(decoder: Float[Tensor, "latent d_in"], other: Float[Tensor, "other_latent d_in"]) -> Matching:
    """Match the latents of two dictionaries one to one, by the cosine of their decoder rows.

    Returns:
        Partners and cosines, in [-1, 1]; -1 and nan for latents left over because the other dictionary is smaller.
    """
    a, b = (torch.nn.functional.normalize(d.detach().double(), dim=1).cpu().numpy() for d in (decoder, other))
    alike = a @ b.T
    rows, columns = linear_sum_assignment(alike, maximize=True)
    partner, cosine = np.full(len(a), -1), np.full(len(a), np.nan)
    partner[rows], cosine[rows] = columns, alike[rows, columns]
    return Matching(partner, cosine)


def mixtures(decoder: Float[Tensor, "latent d_in"], seed: int = 0) -> Float[Tensor, "latent d_in"]:
    """Return as many rows that are sums of the decoder's unit rows with normal weights: the same second moments, and
    no row of the decoder among them."""
    rows = torch.nn.functional.normalize(decoder.detach().double(), dim=1)
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(len(rows), len(rows), generator=draw, dtype=torch.float64).to(rows.device) @ rows
