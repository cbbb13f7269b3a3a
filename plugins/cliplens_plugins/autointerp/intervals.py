"""Intervals for scores of names."""

import numpy as np
from jaxtyping import Float
from scipy.optimize import brentq
from scipy.stats import norm


def auroc_interval(score: float, positive: int, negative: int, level: float = 0.95) -> tuple[float, float]:
    """Interval of an AUROC from the two sample sizes: Newcombe's method 5 (Statistics in Medicine 25:559, 2006).

    Hanley and McNeil's variance at the limit itself instead of at the estimate, so that it stays within [0, 1] and has
    a width even where the AUROC is 1. (nan, nan) for nan or an empty side.
    """
    if np.isnan(score) or not positive or not negative:
        return float("nan"), float("nan")
    z = float(norm.ppf(0.5 + level / 2))
    size = (positive + negative) / 2 - 1

    def beyond(limit: float) -> float:
        inner = 1 + size * ((1 - limit) / (2 - limit) + limit / (1 + limit))
        return (score - limit) ** 2 - z**2 * limit * (1 - limit) * inner / (positive * negative)

    # At 0 and 1 the variance is 0, a root that is no limit: begin a hair inside.
    low = 0.0 if score <= 0 else float(brentq(beyond, 0.0, min(score, 1 - 1e-9)))
    high = 1.0 if score >= 1 else float(brentq(beyond, max(score, 1e-9), 1.0))
    return low, high


def mean_interval(
    values: Float[np.ndarray, " latent"], level: float = 0.95, draws: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """Mean over latents and its bootstrap interval (percentile, latents redrawn); nan values are left out."""
    values = values[~np.isnan(values)]
    if not len(values):
        return (float("nan"),) * 3
    rng = np.random.default_rng(seed)
    means = values[rng.integers(0, len(values), (draws, len(values)))].mean(axis=1)
    low, high = np.quantile(means, [0.5 - level / 2, 0.5 + level / 2])
    return float(values.mean()), float(low), float(high)
