"""Make every attack and take its figures at once, so that no attacked picture has to be kept."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cliplens import tasks
from cliplens.progress import Bar
from cliplens_plugins.robustness.attacks import Attack, attacks_of
from cliplens_plugins.robustness.detectors import Trace, trace
from cliplens_plugins.robustness.lab import Lab
from cliplens_plugins.robustness.losses import margins
from cliplens_plugins.robustness.pgd import equal_noise, pgd
from cliplens_plugins.robustness.pixels import Pixels
from cliplens_plugins.robustness.shares import energies

SHOWN = 6
"""Pictures that are kept for the report."""
R_AT = (1, 5)
TRACED = ("zero-shot margin", "feature", "to the caption")
"""Attacks that detectors are tested on."""


@dataclass(frozen=True)
class Seen:
    """Answers of a model on pictures: a mask per figure, or nan without captions."""

    right: Bool[np.ndarray, " sample"]
    """The nearest class is the own."""
    says_target: Bool[np.ndarray, " sample"]
    """The nearest caption is the target's; without captions, the nearest class."""
    nearer_target: Bool[np.ndarray, " sample"]
    """The target's caption is nearer than the own caption."""
    retrieval: dict[str, float]
    """R@k both ways; empty without captions."""


@dataclass(frozen=True)
class Made:
    """An attack on all pictures, and its figures."""

    kind: str
    latents: str
    eps: float
    """Levels of 255."""
    seen: Seen
    noise_right: Bool[np.ndarray, " sample"]
    """Where the class is right under noise of equal norm."""
    moved: dict[str, Float[np.ndarray, "sample set_and_all"]]
    """Per dictionary: energies of the change of each set of latents. At other eps than the reference of the run's own
    dictionary alone."""
    noise_moved: dict[str, Float[np.ndarray, "sample set_and_all"]]
    """The same under noise of equal norm; of the margin attack at the reference eps alone."""
    other_right: Bool[np.ndarray, " sample"] | None
    """Where the other model is right."""
    traces: dict[str, Trace]
    """Per dictionary what detectors read; empty for attacks they are not tested on."""
    shown: Float[Tensor, "shown 3 height width"]
    """The first pictures, attacked."""
    said: tuple[str, ...]
    """The class the model says for each of them."""


def seen(lab: Lab, unit: Float[Tensor, "sample d"]) -> Seen:
    """Return what embeddings of the pictures say, beside classes and captions."""
    subject = lab.subject
    right = tasks.zero_shot_hits(unit, subject.prototypes, subject.labels).numpy()
    bank = subject.prototypes if subject.text is None else subject.text
    own = unit @ bank.T
    goal = (unit * subject.goals).sum(1, keepdim=True)
    says = (own <= goal + tasks.TIE).all(1).numpy()
    if subject.text is None:
        here = own.gather(1, subject.labels[:, None])
        return Seen(right, says, (goal > here)[:, 0].numpy(), {})
    here = (unit * subject.text).sum(1, keepdim=True)
    found = tasks.retrieval(unit, subject.text, R_AT, caption_ids=subject.captions)
    return Seen(right, says, (goal > here)[:, 0].numpy(), found)


def said(lab: Lab, unit: Float[Tensor, "sample d"]) -> tuple[str, ...]:
    """Return the class that the model says for each embedding."""
    nearest = tasks.nearest_prototype(unit, lab.subject.prototypes.to(unit))
    return tuple(lab.subject.classes[int(n)] for n in nearest)


def made(lab: Lab) -> Iterator[Made]:
    """Yield every attack at every eps with its figures."""
    every = [(eps, attack) for eps in lab.eps for attack in attacks_of(lab, eps)]
    for eps, attack in Bar(every, desc="attacking", unit="attack"):
        yield _made(lab, attack, eps)


def right_of_other(lab: Lab, pixels: Pixels) -> Bool[np.ndarray, " sample"] | None:
    """Return where the other model says the own class; None without another model."""
    if lab.other is None:
        return None
    view = lab.other.eye.views(pixels, batch=lab.batch)
    return (margins(view.unit, lab.other.prototypes, lab.subject.labels) < 0).numpy()


def _made(lab: Lab, attack: Attack, eps: float) -> Made:
    clean = lab.subject.pixels
    pixels = pgd(attack.objective, clean, lab.asked.budget(eps), seed=lab.asked.seed, batch=lab.batch).pixels
    noisy = equal_noise(pixels, clean, seed=lab.asked.seed)
    view, of_noise = (lab.eye.views(p, batch=lab.batch) for p in (pixels, noisy))
    assert lab.clean.acts is not None
    assert view.acts is not None
    assert of_noise.acts is not None
    before = lab.clean.acts
    here = eps == lab.reference
    moved = {b.name: energies(b.reader, b.masks, view.acts, before) for b in lab.books if here or b is lab.own}
    noise = {
        b.name: energies(b.reader, b.masks, of_noise.acts, before)
        for b in lab.books
        if here and attack.kind == "zero-shot margin"
    }
    kept = {b.name: trace(view, b.reader) for b in lab.books} if attack.kind in TRACED else {}
    return Made(
        attack.kind, attack.latents, eps, seen(lab, view.unit),
        (margins(of_noise.unit, lab.subject.prototypes, lab.subject.labels) < 0).numpy(),
        moved, noise, right_of_other(lab, pixels), kept, torch.clone(pixels[:SHOWN]), said(lab, view.unit[:SHOWN]),
    )  # fmt: skip
