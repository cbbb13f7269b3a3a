"""Area under the ROC curve, and its interval from the two sample sizes."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from jaxtyping import Shaped
from scipy.optimize import brentq
from scipy.stats import norm


def auroc(
    positive: Sequence[float] | Shaped[np.ndarray, " positive"],
    negative: Sequence[float] | Shaped[np.ndarray, " negative"],
) -> float:
    """Return how often a positive sample scores above a negative one; ties count one half.

    Args:
        positive: scores of the positive samples.
        negative: scores of the negative samples.

    Returns:
        A number in [0, 1], 0.5 by chance; nan when either side is empty or holds a nan.

    >>> auroc([0.4, 0.9], [0.1, 0.4])
    0.875
    """
    up, down = np.asarray(positive, dtype=np.float64), np.asarray(negative, dtype=np.float64)
    if not len(up) or not len(down) or np.isnan(up).any() or np.isnan(down).any():
        return float("nan")
    down = np.sort(down)
    below, upto = np.searchsorted(down, up, side="left"), np.searchsorted(down, up, side="right")
    return float((below + upto).mean() / (2 * len(down)))


def auroc_interval(score: float, positive: int, negative: int, level: float = 0.95) -> tuple[float, float]:
    """Return the interval of an AUROC, from the AUROC and the two sample sizes.

    Newcombe's method 5 uses Hanley and McNeil's variance at the limit instead of at the estimate. So the interval stays
    within [0, 1] and has a width even where the AUROC is 1.

    Args:
        score: the AUROC.
        positive: number of positive samples.
        negative: number of negative samples.
        level: coverage of the interval.

    Returns:
        Lower and upper limit in [0, 1]; (nan, nan) where the score is nan or a side is empty.

    Source: Newcombe, Statistics in Medicine 25:559 (2006).

    >>> low, high = auroc_interval(1.0, 10, 100)
    >>> round(low, 2), high
    (0.89, 1.0)
    """
    if np.isnan(score) or not positive or not negative:
        return float("nan"), float("nan")
    z = _normal_quantile((1 + level) / 2)
    size = (positive + negative) / 2 - 1

    def beyond(limit: float) -> float:
        inner = 1 + size * ((1 - limit) / (2 - limit) + limit / (1 + limit))
        return (score - limit) ** 2 - z**2 * limit * (1 - limit) * inner / (positive * negative)

    # The variance is 0 at 0 and 1. Of a score of 0 or 1 this is one limit, but not the other: start slightly inside.
    return float(brentq(beyond, 0.0, min(score, 1 - 1e-9))), float(brentq(beyond, max(score, 1e-9), 1.0))


@lru_cache
def _normal_quantile(probability: float) -> float:
    return float(norm.ppf(probability))
