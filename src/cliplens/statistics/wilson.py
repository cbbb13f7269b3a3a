"""Wilson's score interval of a share."""

from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.stats import norm

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
        low, high = np.maximum(centre - half, 0), np.minimum(centre + half, 1)
    known = n > 0
    return np.where(known, low, np.nan), np.where(known, high, np.nan)
