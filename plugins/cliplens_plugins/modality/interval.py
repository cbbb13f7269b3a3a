"""The 95 % interval of MDS: bootstrap percentiles where there are enough firings, else a Wilson interval.

Percentile intervals under-cover for rare or near-unimodal latents: with 20 firings at a true score of .97 they hold it
half of the time. There the Wilson score interval is used, made for means of values in [0, 1] by an effective number

    n_eff = n m (1 - m) / s^2,        m, s^2: mean and variance after adding one pair at 0 and one at 1

of pairs: n where ratios are 0 and 1 only, more where they vary less. It covers about nominally or more: it errs wide.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cliplens.statistics import percentile_interval, wilson_interval
from cliplens.tally import Sums
from cliplens_plugins.modality.bootstrap import replicates

ENOUGH_FIRINGS = 200
ENOUGH_MINORITY = 10.0
"""Least expected number of pairs on the latent's minor side, n min(R, 1 - R), for percentiles to be trusted."""


@dataclass(frozen=True)
class Interval:
    """Bounds per latent; `wilson` flags the latents with too few firings, or too one-sided ones, for percentiles."""

    low: Float[np.ndarray, " d_sae"]
    high: Float[np.ndarray, " d_sae"]
    wilson: Bool[np.ndarray, " d_sae"]


def ratio_interval(
    n: Float[Tensor, " d_sae"], d1: Float[Tensor, " d_sae"], d2: Float[Tensor, " d_sae"], level: float = 0.95
) -> tuple[Float[Tensor, " d_sae"], Float[Tensor, " d_sae"]]:
    """Wilson score interval of a mean of ratios from their count and power sums about 1/2; nan where n = 0."""
    mean = 0.5 + d1 / n
    padded_d = d1 / (n + 2)
    padded_mean = 0.5 + padded_d
    variance = (d2 + 0.5) / (n + 2) - padded_d**2
    n_eff = n * padded_mean * (1 - padded_mean) / variance
    low, high = wilson_interval(mean.cpu().numpy(), n_eff.cpu().numpy(), level)
    return torch.as_tensor(low, device=n.device), torch.as_tensor(high, device=n.device)


def interval(sums: Sums, drawn: Sums) -> Interval:
    """The interval of every latent from the sums of MDS and of its replicates."""
    n = sums["any"].double()
    low, high = (bound.cpu().numpy() for bound in ratio_interval(n, sums["d1"], sums["d2"]))
    off_centre = (sums["d1"] / n).abs()
    enough = (n >= ENOUGH_FIRINGS) & (n * (0.5 - off_centre) >= ENOUGH_MINORITY)
    wilson: Bool[np.ndarray, " d_sae"] = ~enough.cpu().numpy()
    if "d" in drawn and not wilson.all():
        low[~wilson], high[~wilson] = percentile_interval(replicates(drawn)[torch.as_tensor(~wilson)].cpu().numpy())
    return Interval(low, high, wilson)
