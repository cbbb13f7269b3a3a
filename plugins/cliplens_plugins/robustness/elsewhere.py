"""Try the detectors on pictures of another data set. They were fitted on pictures of the run."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Int64

from cliplens import api, keys
from cliplens.errors import InputError
from cliplens.hooked import HookedCLIP
from cliplens.pairs import Decoder, Pairs
from cliplens.studies import with_interval
from cliplens_plugins.robustness import losses
from cliplens_plugins.robustness.detectors import detected, trace
from cliplens_plugins.robustness.guard import FITTED, Guard, scored
from cliplens_plugins.robustness.lab import OWN, Lab
from cliplens_plugins.robustness.pgd import pgd
from cliplens_plugins.robustness.subject import Subject, subject_of_captions
from cliplens_plugins.robustness.tables import rate

Row = dict[str, Any]
_SEED = 172
_TRIED = 8
"""Pictures that are read before the study begins, to refuse a source that has none."""


def elsewhere(lab: Lab, guards: list[Guard], subject: Subject, source: str) -> list[Row]:
    """Return one row per detector and attack on pictures of another data set, clean and attacked.

    Nothing is fitted on these pictures: detectors and thresholds come from pictures of the run. `false at 5%` is how
    often a detector calls a clean picture of the other data set attacked. `zero-shot, clean` is the share of clean
    pictures nearest to their own caption: where the model knows none of them, an attack on zero-shot has nothing to
    change, but still moves the picture.

    Args:
        lab: the study.
        guards: the detectors, of one or more dictionaries.
        subject: the other pictures, each with its own caption as its class.
        source: the name of the other data set.
    """
    clean = lab.eye.views(subject.pixels, batch=lab.batch)
    right = with_interval(*rate((losses.margins(clean.unit, subject.prototypes, subject.labels) < 0).numpy()))
    aims = {
        FITTED: losses.zero_shot(lab.eye, subject.prototypes, subject.labels),
        "feature": losses.feature(lab.eye, clean.raw),
    }
    rows = []
    for eps in sorted({lab.reference, max(lab.eps)}):
        for kind, aim in aims.items():
            attacked = pgd(aim, subject.pixels, lab.asked.budget(eps), seed=lab.asked.seed, batch=lab.batch).pixels
            view = lab.eye.views(attacked, batch=lab.batch)
            for guard in guards:
                book = next(b for b in lab.books if b.name == guard.book)
                before, after = trace(clean, book.reader), trace(view, book.reader)
                for name, score in guard.scores.items():
                    if guard.book != OWN and name != "latents":
                        continue
                    result = detected(score, guard.limits[name], before, after, seed=lab.asked.seed)
                    row: Row = {
                        "pictures": source,
                        "attack": kind,
                        "eps": eps,
                        "zero-shot, clean": right,
                    }
                    rows.append(row | scored(guard, name, result))
    return rows


def other_subject(clip: HookedCLIP, source: str) -> Callable[[int], Subject]:
    """Open another data set, before anything takes long.

    Args:
        clip: the model that reads the pictures.
        source: the other pairs, as `read_pairs` takes them.

    Returns:
        A function of a number that returns as many of its pictures, drawn by id; broken ones are left out.

    Raises:
        PairsError: the source cannot be read as pairs of pictures and captions.
        InputError: fewer than two of its pictures can be read.
    """
    pairs = api.read_pairs(source)
    order = np.argsort(keys.hashed(keys.text_keys(pairs.ids), _SEED), kind="stable")
    _read(clip, pairs, source, order[:_TRIED])  # refuse what cannot be read now
    return lambda count: _read(clip, pairs, source, order[:count])


def _read(clip: HookedCLIP, pairs: Pairs, source: str, chosen: Int64[np.ndarray, " pair"]) -> Subject:
    found = Decoder(pairs, clip.preprocess, True)[np.sort(chosen)]
    kept = [pairs.ids[int(n)] for n in found.indices]
    if found.images is None or len(kept) < 2:
        raise InputError(
            expected="at least two pictures with captions for --elsewhere",
            found=f"{len(kept)} among {len(chosen)} that were drawn from {source}",
            fix="check the paths of its pictures, or pass other pairs",
        )
    return subject_of_captions(clip, kept, found.images, [str(c) for c in found.captions or ()], ())
