"""Round numbers to the digits that a page shows, so that its data stay small."""

from typing import Any

import numpy as np
from jaxtyping import Shaped

DIGITS = 5
"""Significant digits of numbers in the page; latents.parquet keeps them all."""
_EXACT = 22
"""The largest power of ten that a float64 holds exactly."""


def rounded(values: Shaped[np.ndarray, "..."], digits: int = DIGITS) -> Any:
    """Return floats rounded to `digits` significant digits, as nested lists; None for nan and infinities.

    An array without dimensions gives a number.

    A whole number divided by an exact power of ten is the float64 nearest to the decimal number, so that it prints with
    no more than `digits` digits.

    >>> rounded(np.array([3.14159265, 12345678.0, np.nan]))
    [3.1416, 12346000.0, None]
    """
    exact = np.asarray(values, dtype=np.float64)
    finite = np.isfinite(exact)
    known = np.where(finite, exact, 0.0)
    with np.errstate(divide="ignore", over="ignore"):
        size = np.where(known == 0, 0.0, np.floor(np.log10(np.abs(known))))
        places = np.where(known == 0, 0.0, digits - 1 - size)
        power = np.power(10.0, np.clip(np.abs(places), 0, _EXACT))
        shown = np.where(places >= 0, np.rint(known * power) / power, np.rint(known / power) * power)
    far = np.abs(places) > _EXACT
    shown[far] = [float(f"{value:.{digits}g}") for value in known[far]]
    shown = np.where(np.isinf(shown), known, shown)  # the largest float64s round to more than there is
    if finite.all():
        return shown.tolist()
    boxed = shown.astype(object)
    boxed[~finite] = None
    return boxed.tolist()
