"""The tables of attacks: what the model says, which class moves, and which class makes it say another caption."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from cliplens.statistics import wilson_interval
from cliplens.studies import with_interval
from cliplens_plugins.robustness.lab import Book, Lab
from cliplens_plugins.robustness.measure import Made, Seen
from cliplens_plugins.robustness.shares import Interval, Ratios, energies

Row = dict[str, Any]
NOISE = "noise of equal norm"
_DRAWS = 1000


def rate(hits: Bool[np.ndarray, " sample"]) -> tuple[float, float, float]:
    """Return a share with Wilson's interval."""
    share = float(hits.mean())
    low, high = wilson_interval(share, len(hits))
    return share, float(low), float(high)


def paired(a: Bool[np.ndarray, " sample"], b: Bool[np.ndarray, " sample"], seed: int = 0) -> tuple[float, float, float]:
    """Return the difference of two shares over the same pictures, with its bootstrap interval by picture."""
    difference = a.astype(float) - b.astype(float)
    drawn = np.random.default_rng(seed).integers(0, len(a), (_DRAWS, len(a)))
    low, high = np.quantile(difference[drawn].mean(1), [0.025, 0.975])
    return float(difference.mean()), float(low), float(high)


def by_eps(clean: Seen, found: Sequence[Made]) -> list[Row]:
    """Return zero-shot accuracy with one row per attack and one column per eps."""
    levels = sorted({m.eps for m in found})
    rows: dict[tuple[str, str], Row] = {
        ("none", "-"): {f"eps {eps:g}": with_interval(*rate(clean.right)) for eps in levels}
    }
    for m in found:
        rows.setdefault((m.kind, m.latents), {})[f"eps {m.eps:g}"] = with_interval(*rate(m.seen.right))
    cells = {f"eps {eps:g}": None for eps in levels}
    return [{"attack": kind, "latents": latents, **cells, **row} for (kind, latents), row in rows.items()]


def outcomes(
    lab: Lab, clean: Seen, clean_other: Bool[np.ndarray, " sample"] | None, found: Sequence[Made]
) -> list[Row]:
    """Return one row per attack and eps: accuracy, retrieval, target success, transfer, equal noise."""
    rows = [_outcome("none", "-", 0.0, clean, None, clean_other)]
    rows += [_outcome(m.kind, m.latents, m.eps, m.seen, m.noise_right, m.other_right) for m in found]
    return rows


def _outcome(
    kind: str, latents: str, eps: float, seen: Seen, noise: np.ndarray | None, other: np.ndarray | None
) -> Row:
    retrieval = {f"R@{k} {way}": seen.retrieval.get(f"{way}_r{k}") for k in (1, 5) for way in _WAYS}
    row: Row = {
        "attack": kind,
        "latents": latents,
        "eps": eps,
        "zero-shot": with_interval(*rate(seen.right)),
        "zero-shot, equal noise": None if noise is None else with_interval(*rate(noise)),
        "says the target": with_interval(*rate(seen.says_target)),
        "nearer to the target": with_interval(*rate(seen.nearer_target)),
        **{name.replace("_", " "): value for name, value in retrieval.items()},
        "zero-shot, other model": None if other is None else with_interval(*rate(other)),
    }
    return row


_WAYS = ("image_to_text", "text_to_image")


def shares(lab: Lab, found: Sequence[Made]) -> list[Row]:
    """Return, per attack and dictionary, the share of each class divided by its clean energy, beside random sets.

    Dictionaries other than the run's own are shown at the reference eps.
    """
    assert lab.clean.acts is not None
    rows = []
    for book in lab.books:
        clean = energies(book.reader, book.masks, lab.clean.acts)
        here = [m for m in found if book.name == "own" or m.eps == lab.reference]
        rows += [_share(book, m.kind, m.latents, m.eps, m.moved[book.name], clean) for m in here]
        for m in found:
            if m.kind == "zero-shot margin" and m.eps == lab.reference:
                rows.append(_share(book, NOISE, "-", m.eps, m.noise_moved[book.name], clean))
    return rows


def _share(
    book: Book, kind: str, latents: str, eps: float, moved: Float[np.ndarray, "sample set"], clean: np.ndarray
) -> Row:
    classes = book.classes
    found = Ratios.of(moved, clean)
    row: Row = {"dictionary": book.name, "attack": kind, "latents": latents, "eps": eps}
    row |= {name: _cell(found.share(n)) for n, name in enumerate(classes)}
    at = len(classes)
    for n, name in enumerate(classes):
        sets = range(at, at + len(book.random[name]))
        row[f"random as {name}"] = _cell(found.typical(sets))
        row[f"{name} beyond random"] = _cell(found.beyond(n, sets))
        at += len(sets)
    return row


def _cell(figure: Interval) -> str | None:
    """Return a figure with its interval; None if it is not known."""
    return None if np.isnan(figure[0]) else with_interval(*figure)


def crossings(found: Sequence[Made], seed: int = 0) -> list[Row]:
    """Return, per class, how many pictures say the target's caption, and the difference to one draw of random latents.

    Each draw is another attack, so there is one. The interval of the difference is over pictures, not over the draw.
    """
    rows = []
    for made in found:
        if not made.kind.startswith("latents to") or made.latents.startswith("random"):
            continue
        control = [m for m in found if (m.kind, m.eps, m.latents) == (made.kind, made.eps, f"random as {made.latents}")]
        row: Row = {
            "goal": made.kind.removeprefix("latents to the "),
            "latents": made.latents,
            "eps": made.eps,
            "says the target": with_interval(*rate(made.seen.says_target)),
            "nearer to the target": with_interval(*rate(made.seen.nearer_target)),
            "one draw of random latents, nearer": with_interval(*rate(control[0].seen.nearer_target))
            if control
            else None,
            "difference to this draw": with_interval(
                *paired(made.seen.nearer_target, control[0].seen.nearer_target, seed)
            )
            if control
            else None,
            "zero-shot": with_interval(*rate(made.seen.right)),
        }
        rows.append(row)
    for made in found:
        if made.kind == "to the caption":
            rows.append(
                {
                    "goal": "caption, by its embedding",
                    "latents": "-",
                    "eps": made.eps,
                    "says the target": with_interval(*rate(made.seen.says_target)),
                    "nearer to the target": with_interval(*rate(made.seen.nearer_target)),
                    "one draw of random latents, nearer": None,
                    "difference to this draw": None,
                    "zero-shot": with_interval(*rate(made.seen.right)),
                }
            )
    return rows
