"""Detectors, clean-up and adaptive attacks of a study, on pictures that nothing was fitted on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from cliplens.studies import with_interval
from cliplens_plugins.robustness import losses
from cliplens_plugins.robustness.defences import Alarm, CleanUp, clean_up, past_detector
from cliplens_plugins.robustness.detectors import (
    Detected,
    LatentDetector,
    Score,
    Trace,
    detected,
    detectors,
    thresholds,
    trace,
)
from cliplens_plugins.robustness.eye import View
from cliplens_plugins.robustness.lab import OWN, Book, Lab, rows_of
from cliplens_plugins.robustness.measure import Made
from cliplens_plugins.robustness.pgd import Objective, pgd
from cliplens_plugins.robustness.pixels import Pixels
from cliplens_plugins.robustness.subject import Subject
from cliplens_plugins.robustness.tables import rate

Row = dict[str, Any]
FITTED = "zero-shot margin"
WEIGHTS = (0.0, 0.003, 0.01, 0.03, 0.1, 0.3)
"""Weights of the detector's score in adaptive attacks, in cosines per deviation of the clean score."""
FALSE = 0.05
THROUGH = ("attacked through it", "the same, no straight-through")


@dataclass(frozen=True)
class Guard:
    """The detectors of a study, fitted on spare pictures with the margin attack at the reference eps."""

    book: str
    """The dictionary."""
    scores: Mapping[str, Score]
    limits: Mapping[str, Mapping[float, float]]
    clean: Trace
    """Of the test pictures."""
    quiet: Trace
    """Of clean pictures that thresholds are taken from."""
    latents: LatentDetector
    fit_acts: Tensor
    """Activations of the clean pictures latents were ranked on."""


@dataclass(frozen=True)
class Spare:
    """Views of the spare pictures: to fit on, to choose on, each clean and attacked, and clean ones for thresholds."""

    fit: tuple[View, View]
    choose: tuple[View, View]
    quiet: View


def spare_views(lab: Lab) -> Spare | None:
    """Attack the spare pictures; None where there are too few of them."""
    if lab.spare is None:
        return None
    third = len(lab.spare) // 3
    fit, choose = (_both(lab, rows_of(lab.spare, slice(at, at + third))) for at in (0, third))
    return Spare(fit, choose, lab.eye.views(lab.spare.pixels[third:], batch=lab.batch))


def _both(lab: Lab, part: Subject) -> tuple[View, View]:
    aim = losses.zero_shot(lab.eye, part.prototypes, part.labels)
    budget = lab.asked.budget(lab.reference)
    pixels = pgd(aim, part.pixels, budget, seed=lab.asked.seed, batch=lab.batch, progress="fitting detectors").pixels
    return lab.eye.views(part.pixels, batch=lab.batch), lab.eye.views(pixels, batch=lab.batch)


def fitted(lab: Lab, book: Book, spare: Spare) -> Guard:
    """Fit the detectors over a dictionary."""
    clean, attacked = (trace(view, book.reader) for view in spare.fit)
    others = [trace(view, book.reader) for view in spare.choose]
    quiet = trace(spare.quiet, book.reader)
    scores = detectors(clean, attacked, *others, alive=book.scored.alive, seed=lab.asked.seed)
    own = scores["latents"]
    assert isinstance(own, LatentDetector)
    assert spare.fit[0].acts is not None
    limits = {name: thresholds(score, quiet) for name, score in scores.items()}
    return Guard(book.name, scores, limits, trace(lab.clean, book.reader), quiet, own, spare.fit[0].acts)


def detection(lab: Lab, guard: Guard, found: Sequence[Made]) -> list[Row]:
    """Return one row per detector and attack: AUROC, and shares found at false positive rates of 5 % and 1 %.

    Of other dictionaries than the run's own only the detector of latents is shown: the others are the same.
    """
    rows = []
    for made in found:
        if guard.book not in made.traces:
            continue
        seen = made.traces[guard.book]
        for name, score in guard.scores.items():
            if guard.book != OWN and name != "latents":
                continue
            result = detected(score, guard.limits[name], guard.clean, seen, seed=lab.asked.seed)
            row: Row = {
                "attack": made.kind,
                "eps": made.eps,
                "fitted on it": made.kind == FITTED and made.eps == lab.reference,
            }
            rows.append(row | scored(guard, name, result))
    return rows


def scored(guard: Guard, name: str, result: Detected) -> Row:
    """Return the columns of a detector: its name, AUROC, and shares found and false at each limit."""
    row: Row = {
        "detector": name if guard.book == OWN else f"{name} ({guard.book})",
        "AUROC": with_interval(*result.auroc),
    }
    for limit, share in result.found.items():
        row[f"found at {limit:.0%}"] = with_interval(*share)
        row[f"false at {limit:.0%}"] = with_interval(*result.false[limit])
    return row


def clean_ups(lab: Lab, guard: Guard) -> list[Row]:
    """Return one row per clean-up: accuracy on clean pictures, attacked unaware of it, and attacked through it."""
    latents, subject = guard.latents.latents, lab.subject
    alive = np.flatnonzero(lab.own.scored.alive)
    random = torch.as_tensor(np.random.default_rng(lab.asked.seed + 1).permutation(alive)[: len(latents)])
    unaware = _attacked(lab, losses.zero_shot(lab.eye, subject.prototypes, subject.labels))
    rows = [_clean_up_row(lab, "none", 0, None, unaware, {})]
    sets: list[tuple[str, Int64[Tensor, " latent"], bool]] = [
        ("latents of the detector, error kept", latents, True),
        ("latents of the detector, error dropped", latents, False),
        ("random latents, error kept", random, True),
        ("random latents, error dropped", random, False),
        ("reconstruction alone", latents[:0], False),
    ]
    for name, chosen, keep in sets:
        how = {"keep_error": keep}
        change = clean_up(lab.own.reader, chosen, guard.fit_acts, **how)
        plain = clean_up(lab.own.reader, chosen, guard.fit_acts, **how, straight_through=False)
        through = {n: _attacked(lab, _through(lab, of)) for n, of in zip(THROUGH, (change, plain), strict=True)}
        rows.append(_clean_up_row(lab, name, len(chosen), change, unaware, through))
    return rows


def _through(lab: Lab, change: CleanUp) -> Objective:
    return losses.zero_shot(lab.eye, lab.subject.prototypes, lab.subject.labels, change=change)


def _attacked(lab: Lab, aim: Objective) -> Pixels:
    budget = lab.asked.budget(lab.reference)
    return pgd(aim, lab.subject.pixels, budget, seed=lab.asked.seed, batch=lab.batch, progress="defences").pixels


def _clean_up_row(
    lab: Lab, name: str, count: int, change: CleanUp | None, unaware: Pixels, through: Mapping[str, Pixels]
) -> Row:
    def right(pixels: Pixels) -> Bool[np.ndarray, " sample"]:
        view = lab.eye.views(pixels, change, batch=lab.batch)
        return (losses.margins(view.unit, lab.subject.prototypes, lab.subject.labels) < 0).numpy()

    found = {"attacked, unaware of it": right(unaware), **{n: right(p) for n, p in through.items()}}
    row: Row = {"clean-up": name, "latents": count, "eps": lab.reference}
    row["clean"] = with_interval(*rate(right(lab.subject.pixels)))
    row |= {n: with_interval(*rate(found[n])) if n in found else None for n in ("attacked, unaware of it", *THROUGH)}
    row["right under all of them"] = with_interval(*rate(np.logical_and.reduce(list(found.values()))))
    return row


def adaptive(lab: Lab, guard: Guard) -> list[Row]:
    """Return one row per weight of the detector in the attack: misclassified, found, and misclassified unfound."""
    limit = guard.limits["latents"][FALSE]
    alarm = Alarm.of(guard.latents, limit, guard.quiet)
    subject = lab.subject
    rows = []
    for weight in WEIGHTS:
        aim = past_detector(lab.eye, subject.prototypes, subject.labels, alarm, weight)
        view = lab.eye.views(_attacked(lab, aim), batch=lab.batch)
        wrong = (losses.margins(view.unit, subject.prototypes, subject.labels) > 0).numpy()
        seen = trace(view, lab.own.reader)
        flagged = guard.latents(seen) > limit
        by_probe = guard.scores["linear probe"](seen) > guard.limits["linear probe"][FALSE]
        rows.append(
            {
                "weight of the score": weight,
                "eps": lab.reference,
                "misclassified": with_interval(*rate(wrong)),
                "found by latents": with_interval(*rate(flagged)),
                "misclassified, not found by latents": with_interval(*rate(wrong & ~flagged)),
                "misclassified, not found by the probe": with_interval(*rate(wrong & ~by_probe)),
            }
        )
    return rows


def refused(lab: Lab, guard: Guard) -> dict[str, tuple[float, float, float]]:
    """Return zero-shot accuracy on clean pictures where a picture that a detector refuses counts as an error."""
    right = (losses.margins(lab.clean.unit, lab.subject.prototypes, lab.subject.labels) < 0).numpy()
    return {
        name: rate(right & (score(guard.clean) <= guard.limits[name][FALSE])) for name, score in guard.scores.items()
    }
