"""Intervals of a share: Wilson's, that of Clopper and Pearson, and that of the mean of several repetitions."""

from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.special import betaincinv
from scipy.stats import norm
from scipy.stats import t as student

Numbers = Float[np.ndarray, "*shape"] | float | int


def wilson_interval(share: Numbers, n: Numbers, level: float = 0.95) -> tuple[Any, Any]:
    """Return Wilson's score interval of a share of n samples.

    It covers about nominally also where the share is 0 or 1 and where n is small, unlike the normal approximation.

    Args:
        share: the observed share, in [0, 1].
        n: number of samples; an effective number need not be an integer.
        level: coverage of the interval.

    Returns:
        Lower and upper limits in [0, 1], of the shape of the input; nan where n is 0.

    Source: Wilson, J. Am. Stat. Assoc. 22:209 (1927).

    >>> low, high = wilson_interval(0.9, 10)
    >>> round(float(low), 3), round(float(high), 3)
    (0.596, 0.982)
    """
    share, n = np.asarray(share, dtype=np.float64), np.asarray(n, dtype=np.float64)
    z = float(norm.ppf((1 + level) / 2))
    with np.errstate(divide="ignore", invalid="ignore"):
        widened = 1 + (1 / n) * (z * z)
        centre = (share + (1 / (2 * n)) * (z * z)) / widened
        spread = np.sqrt(np.maximum(share * (1 - share) / n + (1 / (4 * n**2)) * (z * z), 0))
        half = z * spread / widened
        # Rounding may put a limit of 0 or 1 beyond the share itself.
        low, high = np.clip(np.minimum(centre - half, share), 0, 1), np.clip(np.maximum(centre + half, share), 0, 1)
    known = n > 0
    return np.where(known, low, np.nan), np.where(known, high, np.nan)


def exact_interval(hits: Numbers, n: Numbers, level: float = 0.95) -> tuple[Any, Any]:
    """Return the interval of Clopper and Pearson of a share: hits of n samples. It covers at least at its level.

    Args:
        hits: number of hits, from 0 to n.
        n: number of samples, at least 1.
        level: coverage of the interval.

    Returns:
        Lower and upper limits in [0, 1], of the shape of the input.

    Source: Clopper and Pearson, Biometrika 26:404 (1934).

    >>> low, high = exact_interval(9, 10)
    >>> round(float(low), 3), round(float(high), 3)
    (0.555, 0.997)
    """
    hits, n = np.asarray(hits, dtype=np.float64), np.asarray(n, dtype=np.float64)
    tail = (1 - level) / 2
    low = np.where(hits > 0, betaincinv(np.maximum(hits, 1), n - hits + 1, tail), 0.0)
    high = np.where(hits < n, betaincinv(hits + 1, np.maximum(n - hits, 1), 1 - tail), 1.0)
    return low, high


def mean_share_interval(
    shares: Float[np.ndarray, " repetition"], counts: Float[np.ndarray, " repetition"], level: float = 0.95
) -> tuple[float, float, float]:
    """Return the mean of the shares of several repetitions, such as seeds, and an interval that stays in [0, 1].

    It is Wilson's interval for an effective number of samples: the number at which a share varies as the mean does over
    the repetitions, corrected for their few degrees of freedom, and at most the number counted (Korn and Graubard,
    Survey Methodology 24:193, 1998, who take Clopper and Pearson's interval). A t-interval leaves the range, and has no
    width where all repetitions agree: of five latents in each of three seeds and a true share of .03 it covers 36 %.

    Args:
        shares: share in each repetition, in [0, 1]; a nan is left out.
        counts: number of samples behind each share.
        level: coverage of the interval; in simulations of 3 and 5 repetitions it was 92 to 99.7 % for 95 %.

    Returns:
        Mean, lower and upper limit; the limits are nan with fewer than two repetitions, all three without any.

    >>> [round(x, 3) for x in mean_share_interval(np.array([0.0, 0.0, 0.0]), np.array([5.0, 5.0, 5.0]))]
    [0.0, 0.0, 0.204]
    """
    known = ~np.isnan(shares)
    shares, counts = shares[known], counts[known]
    if len(shares) < 2:
        return (float(shares.mean()) if len(shares) else float("nan"), float("nan"), float("nan"))
    mean, most = float(shares.mean()), float(counts.sum())
    variance = float(shares.var(ddof=1)) / len(shares)
    quantile = (1 + level) / 2
    fewer = float(norm.ppf(quantile) / student.ppf(quantile, len(shares) - 1)) ** 2
    effective = min(most, mean * (1 - mean) / variance * fewer) if variance > 0 else most
    low, high = wilson_interval(mean, effective, level)
    return mean, min(float(low), mean), max(float(high), mean)  # rounding may put an end of 0 or 1 beyond the mean
