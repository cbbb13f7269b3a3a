"""Correction for many tests at once."""

import numpy as np
from jaxtyping import Float
from scipy.stats import false_discovery_control


def benjamini_hochberg(p: Float[np.ndarray, " test"]) -> Float[np.ndarray, " test"]:
    """Return the q value of each test: the false discovery rate at which it is just significant.

    Args:
        p: p values in [0, 1]; nan for what was not tested.

    Returns:
        q values in [0, 1]; nan where p is nan.

    Source: Benjamini and Hochberg, J. R. Stat. Soc. B 57:289 (1995).

    >>> benjamini_hochberg(np.array([0.01, 0.04, np.nan]))
    array([0.02, 0.04,  nan])
    """
    q = np.full(len(p), np.nan)
    known = ~np.isnan(p)
    if known.any():
        q[known] = false_discovery_control(p[known], method="bh")
    return q
