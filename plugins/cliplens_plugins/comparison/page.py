"""Write the page of a comparison: plots, one table of configurations, and the differences. It works offline."""

from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from cliplens.files import write_text
from cliplens.pages import asset, base_style, embedded, environment, script_hash
from cliplens_plugins.comparison.compare import Comparison, Difference
from cliplens_plugins.comparison.plots import plots

_PACKAGE = "cliplens_plugins.comparison"
MARKS = {
    "different": "≠",
    "within reseed noise": "≈",
    "within sampling noise": "≈",
    "not comparable": "∅",
    "not measured": "–",
    "no seeds": "?",
}


def save_page(path: Path, found: Comparison) -> None:
    """Write the page. It loads nothing, and only its own script, known by its hash, can run."""
    script = asset(_PACKAGE, "compare.js")
    page = (
        environment(_PACKAGE)
        .get_template("compare.html")
        .render(
            found=found,
            groups=groups_of(found),
            plots=[(p, Markup(p.svg)) for p in plots(found)],
            different=[d for d in found.differences if d.verdict == "different"],
            counted=_counted(found),
            marks=MARKS,
            style=Markup(base_style() + asset(_PACKAGE, "compare.css")),
            script=Markup(script),
            script_hash=script_hash(script),
            data=embedded({"differences": [_plain(d) for d in found.differences], "marks": MARKS}),
            isnan=np.isnan,
        )
    )
    write_text(path, page)


def groups_of(found: Comparison) -> dict[str, dict[str, str]]:
    """Return, by figure and configuration, a letter: equal letters are comparable; "" where all are."""
    letters: dict[str, dict[str, str]] = {}
    for figure in found.figures:
        held = {name: m[figure.name].group for name, m in found.measured.items() if figure.name in m}
        order = list(dict.fromkeys(held.values()))
        several = len(order) > 1
        letters[figure.name] = {name: _letter(order.index(group)) if several else "" for name, group in held.items()}
    return letters


def _letter(place: int) -> str:
    """Return a, b, ..., z, a1, b1, ...

    >>> _letter(0), _letter(27)
    ('a', 'b1')
    """
    turn, rest = divmod(place, 26)
    return chr(ord("a") + rest) + (str(turn) if turn else "")


def _counted(found: Comparison) -> dict[str, int]:
    counts = dict.fromkeys(MARKS, 0)
    for difference in found.differences:
        counts[difference.verdict] += 1
    return {verdict: n for verdict, n in counts.items() if n}


def _plain(difference: Difference) -> dict[str, Any]:
    numbers = {n: getattr(difference, n) for n in ("difference", "low", "high", "reseed_bound")}
    plain = {name: None if np.isnan(value) else round(value, 6) for name, value in numbers.items()}
    words = {n: getattr(difference, n) for n in ("first", "second", "figure", "verdict", "why")}
    return {**words, **plain}
