"""Mean and spread of a few numbers."""

from collections.abc import Sequence

import torch


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Return mean and population standard deviation; (nan, nan) of an empty list.

    >>> mean_and_deviation([1.0, 3.0])
    (2.0, 1.0)
    """
    if not len(values):
        return float("nan"), float("nan")
    drawn = torch.as_tensor(values, dtype=torch.float64)
    return float(drawn.mean()), float(drawn.std(correction=0))
