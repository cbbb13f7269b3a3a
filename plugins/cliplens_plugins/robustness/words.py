"""Typographic attacks of a study: accuracy on the object and on the word, and a detector and clean-up for them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from cliplens.studies import with_interval
from cliplens_plugins.robustness.defences import clean_up
from cliplens_plugins.robustness.detectors import LatentDetector, detected, detectors, thresholds, trace
from cliplens_plugins.robustness.eye import Change, View
from cliplens_plugins.robustness.lab import Lab, rows_of
from cliplens_plugins.robustness.pixels import Pixels
from cliplens_plugins.robustness.subject import Subject
from cliplens_plugins.robustness.tables import paired, rate
from cliplens_plugins.robustness.typographic import CASES, Typographic, case_of, typographic, wrong_classes

Row = dict[str, Any]
LONGEST = 24
"""Letters of a class name beyond which it is no word to write on a picture."""


def writable(subject: Subject) -> bool:
    """Return whether the classes are words that can be written on pictures, and the pictures are at hand."""
    return len(subject.pictures) == len(subject) and all(len(name) <= LONGEST for name in subject.classes)


def pixels_with(lab: Lab, pictures: Sequence[Image.Image]) -> Pixels:
    """Return pictures resized as the model does, in [0, 1]."""
    preprocess: Any = lab.run.clip.preprocess
    return lab.eye.scale.to_pixels(torch.stack([preprocess(picture) for picture in pictures]))


def written(lab: Lab, subject: Subject) -> list[Image.Image]:
    """Return the pictures of a subject with the wrong word on each."""
    wrong = wrong_classes(subject.ids, subject.labels.numpy(), len(subject.classes))
    names = subject.classes
    return [
        case_of(picture, "wrong word", names[int(own)], names[int(other)], sample_id, seed=lab.asked.seed)
        for picture, own, other, sample_id in zip(subject.pictures, subject.labels, wrong, subject.ids, strict=True)
    ]


def read_words(lab: Lab, change: Change | None = None) -> Typographic:
    """Return what the model says of the pictures with words on them.

    Args:
        lab: the study.
        change: a defence.
    """

    def embed(pictures: Sequence[Image.Image]) -> Float[Tensor, "sample d_embed"]:
        return lab.eye.views(pixels_with(lab, pictures), change, batch=lab.batch).unit

    s = lab.subject
    return typographic(embed, s.pictures, s.ids, s.labels.numpy(), s.classes, s.prototypes, seed=lab.asked.seed)


def outcomes(found: Typographic, seed: int = 0) -> list[Row]:
    """Return one row per case: accuracy on the object, how often the word is said, also beyond scrambled letters."""
    rows = []
    for case in ("clean", *CASES):
        flipped = found.right("clean") & found.word(case)
        beyond = paired(found.word(case), found.word("scrambled word"), seed) if case == "wrong word" else None
        rows.append(
            {
                "on the picture": case,
                "says the object": with_interval(*rate(found.right(case))),
                "says the wrong word": with_interval(*rate(found.word(case))),
                "was right, now says the word": with_interval(*rate(flipped)),
                "says the word, beyond scrambled letters": None if beyond is None else with_interval(*beyond),
            }
        )
    return rows


def defended(lab: Lab) -> tuple[list[Row], list[Row]]:
    """Return the detector of words on pictures, and the clean-up by its latents; empty without spare pictures."""
    if lab.spare is None:
        return [], []
    third = len(lab.spare) // 3
    parts = [rows_of(lab.spare, slice(at, at + third)) for at in (0, third)]
    reader = lab.own.reader
    views = [[lab.eye.views(p, batch=lab.batch) for p in (s.pixels, pixels_with(lab, written(lab, s)))] for s in parts]
    traces = [trace(view, reader) for of in views for view in of]
    scores = detectors(*traces, alive=lab.own.scored.alive, seed=lab.asked.seed)
    quiet = trace(lab.eye.views(lab.spare.pixels[third:], batch=lab.batch), reader)
    clean = trace(lab.clean, reader)
    attacked = trace(lab.eye.views(pixels_with(lab, written(lab, lab.subject)), batch=lab.batch), reader)
    found = []
    for name, score in scores.items():
        limits = thresholds(score, quiet)
        result = detected(score, limits, clean, attacked, seed=lab.asked.seed)
        row: Row = {"detector": name, "AUROC": with_interval(*result.auroc)}
        for limit in limits:
            row[f"found at {limit:.0%}"] = with_interval(*result.found[limit])
            row[f"false at {limit:.0%}"] = with_interval(*result.false[limit])
        found.append(row)
    own = scores["latents"]
    assert isinstance(own, LatentDetector)
    return found, _cleaned(lab, own, views[0][0])


def _cleaned(lab: Lab, own: LatentDetector, clean: View) -> list[Row]:
    alive = np.flatnonzero(lab.own.scored.alive)
    random = torch.as_tensor(np.random.default_rng(lab.asked.seed + 1).permutation(alive)[: len(own.latents)])
    assert clean.acts is not None
    rows = []
    for name, chosen, keep in (
        ("none", own.latents[:0], True),
        ("latents of the detector, error kept", own.latents, True),
        ("latents of the detector, error dropped", own.latents, False),
        ("random latents, error kept", random, True),
    ):
        change = clean_up(lab.own.reader, chosen, clean.acts, keep_error=keep) if name != "none" else None
        said = read_words(lab, change)
        rows.append(
            {
                "clean-up": name,
                "latents": len(chosen),
                "object, clean": with_interval(*rate(said.right("clean"))),
                "object, with the word": with_interval(*rate(said.right("wrong word"))),
                "word, with the word": with_interval(*rate(said.word("wrong word"))),
            }
        )
    return rows
