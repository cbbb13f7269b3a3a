"""Figures of a session: intervals beside shares, and how both are shown."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cliplens.statistics import mean_interval, wilson_interval

Rows = list[dict[str, Any]]
NO_EFFECT = "no effect"
"""Beginning of the note on an edit that changed nothing."""
INTERVAL = " 95 %"
"""Ending of the key that holds a figure's interval, as text."""
_LIMITS = re.compile(r"(-?[\d.]+)-(-?[\d.]+)")


def with_share(name: str, share: float, n: int) -> dict[str, Any]:
    """Return a share of n samples and its Wilson interval, as entries of a row."""
    low, high = wilson_interval(share, n)
    return {name: share, name + INTERVAL: f"{float(low):.2f}-{float(high):.2f}"}


def with_mean(name: str, values: Sequence[float]) -> dict[str, Any]:
    """Return a mean over samples and, from two samples on, its bootstrap interval, as entries of a row."""
    mean, low, high = mean_interval(np.asarray(values, dtype=float))
    return {name: mean, **({name + INTERVAL: f"{low:.3f}-{high:.3f}"} if len(values) > 1 else {})}


def interval_of(row: Mapping[str, Any], name: str) -> tuple[float, float] | None:
    """Return the interval that stands beside a figure of a row; None if there is none.

    >>> interval_of(with_share("red", 0.5, 8), "red")
    (0.22, 0.78)
    """
    found = _LIMITS.fullmatch(row.get(name + INTERVAL, ""))
    return None if found is None else (float(found[1]), float(found[2]))


def shown(row: dict[str, Any]) -> dict[str, str]:
    """Return a row as text, each interval in brackets behind its figure."""
    return {
        name: _text(value) + (f" ({row[name + INTERVAL]})" if name + INTERVAL in row else "")
        for name, value in row.items()
        if not name.endswith(INTERVAL)
    }


def as_table(rows: Rows) -> tuple[list[str], list[list[str]]]:
    """Return heads and lines of a table: one line per figure and one column per dose, where each dose has one row.

    Of several samples with rows of their own, one line per sample and dose.
    """
    lines = [shown(row) for row in rows]
    if len({row["dose"] for row in rows}) < len(rows):
        return list(lines[0]), [list(line.values()) for line in lines]
    figures = [name for name in lines[0] if name != "dose"]
    heads = ["", *(f"dose {row['dose']:g}" for row in rows)]
    return heads, [[name, *(line.get(name, "") for line in lines)] for name in figures]


def standing_still(rows: Rows, column: str) -> list[str]:
    """Return a note if no dose changed anything."""
    moved = [row[column] for row in rows if row["dose"] != 0 and column in row]
    if moved and all(value == 0 for value in moved):
        return [f"{NO_EFFECT}: nothing changed at any dose; the edited latents may not fire on these samples"]
    return []


def _text(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)
