"""Format numbers for the page."""

import math
from typing import Any

MISSING = "–"
_NARROW_SPACE = "\u202f"
_SMALL = 5e-4
"""Numbers below it would be shown as 0 with three decimals."""


def count(value: Any) -> str:
    """Return a whole number with narrow spaces between thousands.

    >>> count(20480) == "20\u202f480", count(float("inf"))
    (True, '–')
    """
    unknown = _missing(value) or (isinstance(value, float) and math.isinf(value))
    return MISSING if unknown else f"{int(value):,}".replace(",", _NARROW_SPACE)


def figure(value: Any) -> str:
    """Format any value of a table: fractions with three decimals, or in scientific notation if these are all 0.

    >>> figure(0.1234), figure(-0.00012), figure(0.0), figure(True), figure(None)
    ('0.123', '-1.2e-04', '0.000', 'yes', '–')
    """
    if _missing(value):
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return count(value)
    if isinstance(value, float):
        return _fraction(value)
    if isinstance(value, list | tuple):
        return f"{MISSING} ".join(figure(v) for v in value)
    return str(value)


def share(value: Any) -> str:
    """Return a fraction as a percentage.

    >>> share(0.0512) == "5.1\u202f%"
    True
    """
    return MISSING if _missing(value) else f"{100 * float(value):.1f}{_NARROW_SPACE}%"


def _fraction(value: float) -> str:
    size = abs(value)
    if 0 < size < _SMALL:
        return f"{value:.1e}"
    return count(value) if size >= 1000 else f"{value:.1f}" if size >= 10 else f"{value:.3f}"


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
