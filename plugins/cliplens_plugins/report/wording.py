"""How numbers are written in the page."""

import math
from typing import Any

MISSING = "–"
_NARROW_SPACE = "\u202f"


def count(value: Any) -> str:
    """A whole number with narrow spaces between thousands."""
    return MISSING if _missing(value) else f"{int(value):,}".replace(",", _NARROW_SPACE)


def figure(value: Any) -> str:
    """Any value of a small table: three decimals for fractions, thousands apart, text as it is."""
    if _missing(value):
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return count(value)
    if isinstance(value, float):
        size = abs(value)
        return count(value) if size >= 1000 else f"{value:.1f}" if size >= 10 else f"{value:.3f}"
    if isinstance(value, list | tuple):
        return f"{MISSING} ".join(figure(v) for v in value)
    return str(value)


def share(value: Any) -> str:
    """A fraction as a percentage."""
    return MISSING if _missing(value) else f"{100 * float(value):.1f}{_NARROW_SPACE}%"


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
