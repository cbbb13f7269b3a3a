"""Differences between a figure and its control, with intervals."""

import numpy as np
from jaxtyping import Float

from cliplens.statistics.wilson import wilson_interval


def mean_difference(
    values: Float[np.ndarray, " value"],
    control: Float[np.ndarray, " control"],
    level: float = 0.95,
    draws: int = 1000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Return the difference of two means and its bootstrap interval (percentile); nan values are left out.

    Args:
        values: one number per unit.
        control: one number per unit of the control; its units may be others.
        level: coverage of the interval.
        draws: number of bootstrap samples.
        seed: seed of the draw.

    Returns:
        Difference, lower and upper limit; three times nan where a side has no value.

    >>> mean_difference(np.array([1.0, 1.0]), np.array([0.25, 0.25]))
    (0.75, 0.75, 0.75)
    """
    sides = [x[~np.isnan(x)] for x in (values, control)]
    if not all(len(side) for side in sides):
        return (float("nan"),) * 3
    rng = np.random.default_rng(seed)
    a, b = (side[rng.integers(0, len(side), (draws, len(side)))].mean(axis=1) for side in sides)
    low, high = np.quantile(a - b, [0.5 - level / 2, 0.5 + level / 2])
    return float(sides[0].mean() - sides[1].mean()), float(low), float(high)


def ratio_difference(
    values: Float[np.ndarray, "2 unit"],
    control: Float[np.ndarray, "2 unit"],
    level: float = 0.95,
    draws: int = 1000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Return the difference of two ratios of sums and its bootstrap interval (percentile) over units they share.

    Args:
        values: numerator and denominator of each unit.
        control: the same of the control, for the same units in the same order.
        level: coverage of the interval.
        draws: number of bootstrap samples.
        seed: seed of the draw.

    Returns:
        Difference, lower and upper limit; three times nan without units or where a sum of denominators is 0.

    >>> ratio_difference(np.array([[1.0, 1.0], [2.0, 2.0]]), np.array([[1.0, 1.0], [4.0, 4.0]]))
    (0.25, 0.25, 0.25)
    """
    sides = [side.sum(1) for side in (values, control)]
    if not all(denominator > 0 for _, denominator in sides):
        return (float("nan"),) * 3
    drawn = np.random.default_rng(seed).integers(0, values.shape[1], (draws, values.shape[1]))
    a, b = (side[0][drawn].sum(1) / side[1][drawn].sum(1) for side in (values, control))
    low, high = np.quantile(a - b, [0.5 - level / 2, 0.5 + level / 2])
    (above, below), (other_above, other_below) = sides
    return float(above / below - other_above / other_below), float(low), float(high)


def share_difference(
    hits: int, n: int, control_hits: int, control_n: int, level: float = 0.95
) -> tuple[float, float, float]:
    """Return the difference of two shares and its interval (Newcombe's method 10, from Wilson intervals).

    Args:
        hits: number of hits among n.
        n: number of samples.
        control_hits: number of hits among the samples of the control.
        control_n: number of samples of the control.
        level: coverage of the interval.

    Returns:
        Difference, lower and upper limit, in [-1, 1]; three times nan where a side has no sample.

    Source: Newcombe, Statistics in Medicine 17:873 (1998).

    >>> [round(x, 3) for x in share_difference(56, 70, 48, 80)]
    [0.2, 0.052, 0.334]
    """
    if not n or not control_n:
        return (float("nan"),) * 3
    a, b = hits / n, control_hits / control_n
    (low_a, high_a), (low_b, high_b) = wilson_interval(a, n, level), wilson_interval(b, control_n, level)
    below, above = np.hypot(a - low_a, high_b - b), np.hypot(high_a - a, b - low_b)
    return a - b, max(float(a - b - below), -1.0), min(float(a - b + above), 1.0)
