"""Bootstrap over pairs, streamed: every pair gets a Poisson(1) weight per replicate, hashed from its id.

A pair has the same weights on every machine and in every order, so replicates add up and merge like any other sum; no
pair is kept. The weights are those of the Poisson bootstrap (Hanley and MacGibbon, Computer Methods and Programs in
Biomedicine 83, 2006), the streaming form of drawing pairs with replacement.
"""

from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt64
from scipy.sparse import csr_matrix
from scipy.stats import poisson
from torch import Tensor

from cliplens.keys import hashed
from cliplens.records import PairedCodes
from cliplens.tally import Sums

REPLICATES = 200
_SEED = 57


def poisson_weights(
    keys: UInt64[np.ndarray, " row"], n_replicates: int = REPLICATES, seed: int = _SEED
) -> Float[np.ndarray, "row replicate"]:
    """Poisson(1) weights of each pair in each replicate, drawn from its key alone."""
    n_words = -(-n_replicates // 4)
    lanes = hashed(np.arange(n_words, dtype=np.uint64), seed)
    with np.errstate(over="ignore"):
        words = hashed(keys[:, None] ^ lanes[None, :], seed)
    return _table()[words.view(np.uint16)[:, :n_replicates]]


def add_replicates(sums: Sums, codes: PairedCodes, n_replicates: int) -> None:
    """Add a batch: per latent and replicate, the weights of its firing pairs and their weighted ratios."""
    joint = codes.joint
    weights = poisson_weights(codes.keys, n_replicates)
    image, text = joint.image.double().abs(), joint.text.double().abs()
    d = (image / (image + text) - 0.5).cpu().numpy()
    place = (joint.latents.cpu().numpy(), joint.rows.cpu().numpy())
    for name, values in (("weight", np.ones_like(d)), ("d", d)):
        matrix = csr_matrix((values, place), shape=(codes.d_sae, len(codes)))
        sums.add(name, torch.as_tensor(matrix @ weights))


def replicates(sums: Sums) -> Float[Tensor, "d_sae replicate"]:
    """MDS of each latent in each replicate; nan where the replicate drew none of its firing pairs."""
    return 0.5 + sums["d"] / sums["weight"]


def percentile_interval(
    drawn: Float[Tensor, "d_sae replicate"], level: float = 0.95
) -> tuple[Float[np.ndarray, " d_sae"], Float[np.ndarray, " d_sae"]]:
    """The middle `level` of the replicates; nan where there are none."""
    values = drawn.cpu().numpy()
    known: Bool[np.ndarray, " d_sae"] = ~np.isnan(values).all(1)
    low, high = np.full(len(values), np.nan), np.full(len(values), np.nan)
    if known.any():
        # Weibull's positions give order statistics their nominal coverage also with few replicates.
        tails = [(1 - level) / 2, (1 + level) / 2]
        low[known], high[known] = _quantiles(values[known], tails)
    return low, high


def _quantiles(values: Float[np.ndarray, "latent replicate"], tails: list[float]) -> Float[np.ndarray, "tail latent"]:
    full = ~np.isnan(values).any(1)
    out = np.empty((len(tails), len(values)))
    if full.any():
        out[:, full] = np.quantile(values[full], tails, axis=1, method="weibull")
    for row in np.flatnonzero(~full):
        out[:, row] = np.quantile(values[row][~np.isnan(values[row])], tails, method="weibull")
    return out


@lru_cache(maxsize=1)
def _table() -> Float[np.ndarray, " uint16"]:
    """Poisson(1) at 65,536 evenly spaced quantiles: one gather turns sixteen hashed bits into a weight of mean 1."""
    return poisson.ppf((np.arange(65536) + 0.5) / 65536, 1.0)
