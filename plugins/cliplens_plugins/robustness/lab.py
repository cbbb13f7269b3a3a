"""The parts of a study: model, dictionaries with their classes, pictures, and another model."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from cliplens import api
from cliplens.errors import CliplensError
from cliplens.hooked import HookedCLIP
from cliplens.records import PairedActs
from cliplens.run import OpenedRun
from cliplens.sae import Dictionary
from cliplens.studies import (
    ClassRule,
    LatentGroups,
    ScoredClasses,
    classes_of_table,
    matched_sets,
    score_classes,
    twin_of,
)
from cliplens_plugins.robustness.eye import Eye, Reader, View
from cliplens_plugins.robustness.options import ATTACKS, CONTROLS
from cliplens_plugins.robustness.pgd import LEVEL, Budget
from cliplens_plugins.robustness.subject import Subject, prototypes_of, subject_of, targets

CLASSES = ("ImgD", "TextD", "CrossD")

EPS = (1.0, 2.0, 4.0, 8.0)
ATTACKS_LARGE, EPS_LARGE = ("margin", "caption", "class"), (4.0,)
"""Attacks and eps for models so large that few pictures fit into minutes of two cores."""
OWN, UNTRAINED, RESEEDED = "own", "never trained", "other seed"
ACTS = 2048
SPARE = 3
"""For each picture that is measured, others that detectors are fitted on, chosen on, and take thresholds from."""
_MOST, _FEWEST = 64, 8
_SPARE_LEAST = 36
"""Fewest other pictures: a third each to fit on, to choose on and to take thresholds from."""
_COST = 2.0e9
"""Multiplications of a forward pass times pictures that fit into a few minutes of two cores."""
_TWINS = {"world": "world-plain", "world-plain": "world"}


@dataclass(frozen=True, kw_only=True)
class AttackOptions:
    """Options of a study of attacks."""

    labels: str | None = None
    images: int | None = None
    """Pictures to measure; None chooses by the size of the model."""
    eps: Sequence[float] | None = None
    """In levels of 255; None takes 1, 2, 4 and 8, or 4 alone for a large model."""
    attacks: Sequence[str] | None = None
    """Of `ATTACKS`; None takes all, or `margin`, `caption` and `class` for a large model."""
    steps: int = 10
    restarts: int = 1
    strong: bool = False
    """100 steps of eps/4 and five starts."""
    transfer: str | None = None
    """A model the pictures are shown to as well; None takes the twin of an embedded model."""
    elsewhere: str | None = None
    """Pairs of another data set, on whose pictures the detectors are tried."""
    reseed: bool = True
    """Train the dictionary again from another seed."""
    controls: int = CONTROLS
    """Random sets of latents that the share of each class is compared with; below `FEWEST_CONTROLS`, none is called
    different. Attacks restricted to random latents take one set, because each set is another attack."""
    rule: ClassRule = "modality"
    seed: int = 0

    def budget(self, eps: float) -> Budget:
        """Return the budget for an eps in levels."""
        small = eps / 255
        return Budget.strong(small) if self.strong else Budget(small, self.steps, LEVEL, self.restarts)


@dataclass(frozen=True)
class Book:
    """A dictionary with the classes of its latents, and random sets as large as each class."""

    name: str
    reader: Reader
    groups: LatentGroups
    random: dict[str, Bool[np.ndarray, "draw d_sae"]]
    """Per class, the sets that its share is compared with."""
    attacked: dict[str, Bool[np.ndarray, " d_sae"]]
    """Per class, the one random set that an attack is restricted to."""
    scored: ScoredClasses

    @property
    def classes(self) -> list[str]:
        """The classes that hold a latent."""
        return [name for name in CLASSES if self.groups.of(name).any()]

    @property
    def masks(self) -> Bool[np.ndarray, "set d_sae"]:
        """Masks of the classes that hold a latent, then the random sets of each."""
        own = [self.groups.of(name)[None] for name in self.classes]
        return np.concatenate([*own, *(self.random[name] for name in self.classes)])


@dataclass(frozen=True)
class Other:
    """Another model that sees the attacked pictures."""

    name: str
    eye: Eye
    prototypes: Float[Tensor, "class d_embed"]


@dataclass(frozen=True)
class Lab:
    """Everything a study works with."""

    run: OpenedRun
    asked: AttackOptions
    eps: tuple[float, ...]
    attacks: tuple[str, ...]
    large: bool
    """Whether the model is so large that few pictures and attacks fit into minutes."""
    eye: Eye
    clean: View
    subject: Subject
    spare: Subject | None
    """Other pictures, for detectors; None if there are too few."""
    books: list[Book]
    other: Other | None
    batch: int
    notes: list[str]

    @property
    def own(self) -> Book:
        """The run's own dictionary."""
        return self.books[0]

    @property
    def reference(self) -> float:
        """The eps that detectors, defences and checks use: the one nearest to 4 levels."""
        return min(self.eps, key=lambda eps: (abs(eps - 4), eps))


def open_lab(run: OpenedRun, asked: AttackOptions) -> Lab:
    """Open the parts of a study.

    Raises:
        InputError: the run has one modality, no scores, no such labels, or a model without preprocess.
    """
    scored = classes_of_table(run.table, asked.rule)
    eye = Eye(run.clip, run.dictionary)
    large = affordable(run.clip) < _MOST and asked.images is None
    count = affordable(run.clip) if asked.images is None else asked.images
    spares = SPARE * count if large and asked.elsewhere is None else max(SPARE * count, _SPARE_LEAST)
    whole = subject_of(run, asked.labels, count + spares, seed=asked.seed)
    notes = [FEW.format(count)] if large else []
    main = max(2, min(count, len(whole) // 2)) if len(whole) < count + spares else count
    subject, spare = rows_of(whole, slice(0, main)), None
    if len(whole) - main >= _SPARE_LEAST:
        spare = rows_of(whole, slice(main, None))
    else:
        notes.append(NO_DETECTORS.format(_SPARE_LEAST, len(whole) - main))
        if asked.elsewhere is not None:
            notes.append(f"Nothing was tried on {asked.elsewhere}, because there are no detectors.")
    books, more = _books(run, asked, scored, eye)
    other, why = _other(run, asked, whole, (subject.pixels.shape[2], subject.pixels.shape[3]))
    batch = min(run.asked.forward_batch, 128)
    eps = tuple(asked.eps or (EPS_LARGE if large else EPS))
    attacks = tuple(asked.attacks or (ATTACKS_LARGE if large else ATTACKS))
    clean = eye.views(subject.pixels, batch=batch)
    all_notes = [*notes, *more, *why]
    return Lab(run, asked, eps, attacks, large, eye, clean, subject, spare, books, other, batch, all_notes)


NO_DETECTORS = (
    "No detectors and no defences: they are fitted on {} other pictures, and {} are left. Make a run with more "
    "held-out pairs, or ask for more with --images."
)
FEW = (
    "Only {} pictures and few attacks, because the model is large for two cores: every interval is wide. On a GPU, ask "
    "for more with --images 200."
)


def affordable(clip: HookedCLIP) -> int:
    """Return the number of pictures that a few minutes of two cores allow, by the size of the image tower alone."""
    vision: Any = clip.vision
    weights = sum(p.numel() for p in vision.stock.parameters())
    return pictures_for(weights, int(getattr(vision.cfg, "n_ctx", 0) or 1))


def pictures_for(weights: int, positions: int) -> int:
    """Return the number of pictures for an image tower of so many weights and positions.

    >>> pictures_for(400_000, 37), pictures_for(86_000_000, 50)
    (64, 8)
    """
    return int(np.clip(_COST / max(weights * positions, 1), _FEWEST, _MOST))


def rows_of(subject: Subject, rows: slice) -> Subject:
    """Return some pictures of a subject, with targets among themselves."""
    ids = subject.ids[rows]
    captions = None if subject.captions is None else subject.captions[rows]
    labels = subject.labels[rows]
    return replace(
        subject, ids=ids, pixels=subject.pixels[rows], labels=labels, captions=captions,
        text=None if subject.text is None else subject.text[rows],
        target=targets(ids, labels.numpy(), captions), pictures=subject.pictures[rows],
    )  # fmt: skip


def _books(run: OpenedRun, asked: AttackOptions, scored: ScoredClasses, eye: Eye) -> tuple[list[Book], list[str]]:
    assert eye.reader is not None
    found, notes = [_book(OWN, eye.reader, scored, asked)], []
    try:
        acts: PairedActs = run.scored_acts(ACTS)
        twin, classes = twin_of(run.dictionary, acts, rule=asked.rule, seed=asked.seed)
    except CliplensError as error:
        return found, [f"No control by a dictionary that was never trained: {error}"]
    found.append(_book(UNTRAINED, Reader(twin), classes, asked))
    if asked.reseed:
        try:
            again: Dictionary = run.reseeded(asked.seed + 1)
            found.append(_book(RESEEDED, Reader(again), score_classes(again, acts, asked.rule), asked))
        except CliplensError as error:
            notes.append(f"No dictionary from another seed: {error}")
    return found, notes


def _book(name: str, reader: Reader, scored: ScoredClasses, asked: AttackOptions) -> Book:
    groups = LatentGroups.from_classes(scored.classes)
    draws = max(1, asked.controls)
    one, random = (
        {of: matched_sets(groups.of(of), scored.rates, n, seed=asked.seed) for of in CLASSES} for n in (1, draws)
    )
    return Book(name, reader, groups, random, {of: sets[0] for of, sets in one.items()}, scored)


def _other(
    run: OpenedRun, asked: AttackOptions, subject: Subject, size: tuple[int, int]
) -> tuple[Other | None, list[str]]:
    name = asked.transfer or _TWINS.get(run.asked.model)
    if name is None:
        return None, ["No transfer to another model was measured: name one with --transfer."]
    clip = api.load(name, device=run.asked.device, dtype=run.asked.dtype)
    if run.asked.model in _TWINS and name not in _TWINS and Path(name.removeprefix("local-dir:")).exists():
        clip = api.wrap(clip.model, preprocess=run.clip.preprocess, tokenizer=run.clip.tokenizer)
    vision: Any = clip.vision
    own = getattr(vision.cfg, "image_size", None)
    eye = Eye(clip, size=tuple(own) if own is not None and tuple(own) != size else None)
    return Other(name, eye, prototypes_of(clip, subject.sentences)), []
