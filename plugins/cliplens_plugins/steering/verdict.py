"""Say in one line whether an edit did more than a random edit of the same size."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cliplens.statistics import mean_interval
from cliplens_plugins.steering.figures import Rows, interval_of
from cliplens_plugins.steering.parsing import aimed_at
from cliplens_plugins.steering.request import SteeringRequest

_MOVEMENTS = ("picture moved", "image moved", "caption moved", "changed")
NO_CONTROL = "not measured; cliplens steer --control also steers a random edit of the same size"
CLASSES = "--classes 'cat,dog' tells which class the samples move to"


@dataclass(frozen=True)
class _Found:
    """A figure at one dose: its change from dose 0, and its value with a 95 % interval, if there is one."""

    change: float
    value: float
    interval: tuple[float, float] | None


def verdict_of(request: SteeringRequest, found: dict[str, Any], control: Rows | None) -> str:
    """Return how an edit compares with the random one, or how to measure that; "" in a mix, which has its own controls.

    Args:
        request: what was asked for.
        found: the content of steering.json.
        control: rows of figures of the random edit; None if it was not asked for.
    """
    rows = found["measured"]
    if request.mix or not rows:
        return ""
    if control is None:
        of_clip = "image moved" in rows[0] and not request.classes
        return f"{NO_CONTROL}; {CLASSES}" if of_clip else NO_CONTROL
    words = [aimed_at(text) for text in request.edit]
    return verdict(rows, control, aim=found["aim"], words=words, dose=found.get("suggested_dose"))


def verdict(own: Rows, random: Rows, *, aim: str | None, words: Sequence[str] = (), dose: float | None = None) -> str:
    """Return a sentence that compares what an edit changed with what a random edit of the same size changed.

    The figure is the aim if it was measured, else the cosine with a phrase, the share of the class that the edit names,
    the share of changed classes, or the movement.

    Args:
        own: rows of figures by dose.
        random: the same of the random edit.
        aim: the figure that the edit should change, if it is in the rows.
        words: words of the edit, one of which may be a class.
        dose: where to compare; None takes the largest dose up to 1.
    """
    dose = _typical({row["dose"] for row in own}) if dose is None else dose
    figure = _figure(own, aim, words)
    if dose is None or figure is None:
        return "nothing was measured that could be compared"
    ours, chance = (_at(rows, figure, dose) for rows in (own, random))
    if ours is None or chance is None:
        return "nothing was measured that could be compared"
    said = f"{figure!r} changes by {ours.change:+.3f} at dose {dose:g}, by {chance.change:+.3f} with a random edit"
    return f"{said} of the same size: {_judged(ours, chance)}{_meaning(figure)}"


def _typical(doses: set[float]) -> float | None:
    """Return the largest dose up to 1 or, if all are larger, the smallest; None if there is only dose 0."""
    others = sorted(doses - {0.0})
    small = [dose for dose in others if dose <= 1]
    return small[-1] if small else others[0] if others else None


def _figure(rows: Rows, aim: str | None, words: Sequence[str]) -> str | None:
    names = list(rows[0]) if rows else []
    phrases = [name for name in names if name.startswith("cosine with '")]
    classes = [f"seen as {word}" for word in words]
    wanted = (aim, *phrases, *classes, "class changed", *_MOVEMENTS)
    return next((name for name in wanted if name in names), None)


def _at(rows: Rows, figure: str, dose: float) -> _Found | None:
    """Return a figure at a dose. Where every sample has rows of its own, this is the mean over samples."""
    values, before = ([row[figure] for row in rows if row["dose"] == d and figure in row] for d in (dose, 0.0))
    if not values or not before:
        return None
    if len(values) == 1:
        interval = next(interval_of(row, figure) for row in rows if row["dose"] == dose)
        return _Found(values[0] - before[0], values[0], interval)
    mean, low, high = mean_interval(np.asarray(values, dtype=float))
    return _Found(mean - float(np.mean(before)), mean, (low, high))


def _judged(own: _Found, chance: _Found) -> str:
    if own.interval is None or chance.interval is None:
        return "one sample has no interval, so this is no test"
    if own.interval[0] <= chance.interval[1] and chance.interval[0] <= own.interval[1]:
        return "within its control (the 95 % intervals overlap)"
    return f"{'above' if abs(own.change) > abs(chance.change) else 'below'} its control"


def _meaning(figure: str) -> str:
    return "; this says how far, not where to" if figure in _MOVEMENTS else ""
