"""Bootstrap: weights for streamed data, and intervals from replicates.

Every unit (a picture with all its captions) gets a Poisson(1) weight per replicate, hashed from its key. It has the
same weights on every machine and in every order, so replicates add up and merge like any other sum; no sample is kept.
This is the Poisson bootstrap (Hanley and MacGibbon, Computer Methods and Programs in Biomedicine 83, 2006), the
streaming form of drawing units with replacement.
"""

from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float, UInt64
from scipy.stats import norm, poisson

from cliplens.keys import hashed

REPLICATES = 200
MANY = 5000
"""From this number of values on, the interval of a mean is the normal one."""
_SEED = 57


def poisson_weights(
    keys: UInt64[np.ndarray, " row"], n_replicates: int = REPLICATES, seed: int = _SEED
) -> Float[np.ndarray, "row replicate"]:
    """Return Poisson(1) weights of each unit in each replicate, drawn from its key alone.

    >>> keys = np.array([7, 7, 8], dtype=np.uint64)
    >>> weights = poisson_weights(keys, 4)
    >>> weights.shape, bool((weights[0] == weights[1]).all())
    ((3, 4), True)
    """
    n_words = -(-n_replicates // 4)
    lanes = hashed(np.arange(n_words, dtype=np.uint64), seed)
    with np.errstate(over="ignore"):
        words = hashed(keys[:, None] ^ lanes[None, :], seed)
    return _table()[words.view(np.uint16)[:, :n_replicates]]


def percentile_interval(
    drawn: Float[np.ndarray, "unit replicate"], level: float = 0.95
) -> tuple[Float[np.ndarray, " unit"], Float[np.ndarray, " unit"]]:
    """Return the middle `level` of the replicates of each row; nan where a row has none.

    >>> low, high = percentile_interval(np.arange(100.0)[None], 0.5)
    >>> round(float(low[0]), 2), round(float(high[0]), 2)
    (24.25, 74.75)
    """
    known: Bool[np.ndarray, " unit"] = ~np.isnan(drawn).all(1)
    low, high = np.full(len(drawn), np.nan), np.full(len(drawn), np.nan)
    if known.any():
        # Weibull's positions give order statistics their nominal coverage also with few replicates.
        tails = [(1 - level) / 2, (1 + level) / 2]
        low[known], high[known] = _quantiles(drawn[known], tails)
    return low, high


def mean_interval(
    values: Float[np.ndarray, " value"], level: float = 0.95, draws: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """Return the mean of independent values and its bootstrap interval (percentile); nan values are left out.

    From `MANY` values on, the interval is the normal one, mean plus or minus a quantile times the standard error: the
    two differ by less than the random error of `draws` bootstrap samples.

    Args:
        values: one number per unit.
        level: coverage of the interval.
        draws: number of bootstrap samples.
        seed: seed of the draw.

    Returns:
        Mean, lower and upper limit; three times nan where no value is left.

    >>> mean_interval(np.array([0.3, np.nan, 0.3]))
    (0.3, 0.3, 0.3)
    """
    values = values[~np.isnan(values)]
    if not len(values):
        return (float("nan"),) * 3
    if len(values) >= MANY:
        mean, half = float(values.mean()), float(norm.ppf(0.5 + level / 2) * values.std() / len(values) ** 0.5)
        return mean, mean - half, mean + half
    rng = np.random.default_rng(seed)
    means = values[rng.integers(0, len(values), (draws, len(values)))].mean(axis=1)
    low, high = np.quantile(means, [0.5 - level / 2, 0.5 + level / 2])
    return float(values.mean()), float(low), float(high)


def _quantiles(values: Float[np.ndarray, "unit replicate"], tails: list[float]) -> Float[np.ndarray, "tail unit"]:
    full = ~np.isnan(values).any(1)
    out = np.empty((len(tails), len(values)))
    if full.any():
        out[:, full] = np.quantile(values[full], tails, axis=1, method="weibull")
    for row in np.flatnonzero(~full):
        out[:, row] = np.quantile(values[row][~np.isnan(values[row])], tails, method="weibull")
    return out


@lru_cache(maxsize=1)
def _table() -> Float[np.ndarray, " uint16"]:
    """Return Poisson(1) at 65,536 evenly spaced quantiles: one look-up turns sixteen hashed bits into a weight."""
    return poisson.ppf((np.arange(65536) + 0.5) / 65536, 1.0)
