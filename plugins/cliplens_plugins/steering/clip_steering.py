"""Steer CLIP itself over doses: measure zero-shot classification, retrieval, and the change of embeddings."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from PIL import Image
from torch import Tensor

from cliplens import tasks
from cliplens.errors import InputError
from cliplens.pairs import open_image
from cliplens_plugins.steering.context import steer
from cliplens_plugins.steering.figures import with_mean, with_share
from cliplens_plugins.steering.given import picture_at
from cliplens_plugins.steering.request import SteeringRequest
from cliplens_plugins.steering.sources import Run

PAIRS = 256
"""Default number of held-out pairs to steer."""
_BATCH = 64
NOTES = (
    "moved: mean of 1 - cosine with the embedding at dose 0",
    "retrieval among {n} held-out pairs; ties count as misses",
)


@dataclass(frozen=True)
class Samples:
    """The samples to steer: images, captions, or pairs of both."""

    labels: list[str]
    images: list[Image.Image] | None
    captions: list[str] | None


def samples_of(run: Run, request: SteeringRequest, keep: Any) -> Samples:
    """Return prompts, pictures from files, or held-out pairs of the run.

    Raises:
        InputError: no held-out pair is left.
    """
    if request.prompts or request.images:
        images = [picture_at(path) for path in request.images] or None
        labels = [*request.prompts, *(path.name for path in request.images)]
        return Samples(labels, images, list(request.prompts) or None)
    chosen = run.held_out(request.pairs or PAIRS, keep)
    if not chosen:
        raise InputError(
            expected="held-out pairs to steer",
            found=f"none in {run.asked.pairs} that can be read",
            fix="pass --prompt or --image",
        )
    towers = run.clip.towers
    images = [open_image(pair) for pair in chosen] if run.pairs.has_images and "vision" in towers else None
    captions = [str(pair.caption) for pair in chosen] if run.pairs.has_captions and "text" in towers else None
    return Samples([pair.id for pair in chosen], images, captions)


def over_doses(
    run: Run, request: SteeringRequest, steering: Any, samples: Samples
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return one row of figures per dose, and notes on how to read them."""
    classes = list(request.classes)
    prototypes = run.clip.class_prototypes(classes) if classes else None
    truth = _named_classes(samples.captions, classes)
    rows: list[dict[str, Any]] = []
    plain: dict[str, Tensor] = {}
    for dose in request.ordered_doses:
        at = steering.at_dose(dose)
        with torch.no_grad(), steer(run.clip, at, site=request.site) as movement:
            now = _embedded(run, samples)
        plain = plain or _embedded(run, samples)
        row: dict[str, Any] = {"dose": dose, "activations moved": 0.0 if at.idle else movement.activations}
        for name in now:
            row |= with_mean(f"{name} moved", _moved(plain[name], now[name]))
        if "image" in now and "caption" in now and len(now["image"]) == len(now["caption"]):
            for name, share in tasks.retrieval(now["image"], now["caption"], at=(1, 5)).items():
                row |= with_share(name, share, len(now["image"]))
            cosine = torch.nn.functional.cosine_similarity(now["image"], now["caption"], dim=-1)
            row["cosine of pairs"] = float(cosine.mean())
        if prototypes is not None and "image" in now:
            row |= _classified(now["image"], plain["image"], prototypes, classes, truth)
        rows.append(row)
    notes = [note.format(n=len(samples.labels)) for note in NOTES]
    if truth is not None:
        notes.append("accuracy: on the pairs whose caption names exactly one class")
    return rows, notes


def _embedded(run: Run, samples: Samples) -> dict[str, Float[Tensor, "sample d_embed"]]:
    given = {"image": samples.images, "caption": samples.captions}
    return {name: run.embedded_in_batches(list(values), _BATCH) for name, values in given.items() if values}


def _moved(before: Float[Tensor, "sample d_embed"], after: Float[Tensor, "sample d_embed"]) -> list[float]:
    unit = [torch.nn.functional.normalize(rows.double(), dim=-1) for rows in (before, after)]
    moved: list[float] = ((unit[0] - unit[1]).square().sum(-1) / 2).tolist()  # 1 - cosine, and 0 for equal rows
    return moved


def _classified(
    now: Float[Tensor, "sample d_embed"],
    plain: Float[Tensor, "sample d_embed"],
    prototypes: Float[Tensor, "value d_embed"],
    classes: Sequence[str],
    truth: Int64[np.ndarray, " sample"] | None,
) -> dict[str, Any]:
    found, before = (tasks.nearest_prototype(rows, prototypes).cpu().numpy() for rows in (now, plain))
    shares = {f"seen as {name}": found == n for n, name in enumerate(classes)} | {"class changed": found != before}
    if truth is not None:
        shares["accuracy"] = (found == truth)[truth >= 0]
    row: dict[str, Any] = {}
    for name, hits in shares.items():
        row |= with_share(name, float(hits.mean()), len(hits))
    return row


def _named_classes(captions: Sequence[str] | None, classes: Sequence[str]) -> Int64[np.ndarray, " sample"] | None:
    """Return the class that each caption names, -1 if it names none or several; None if no caption names one."""
    if not captions or not classes:
        return None
    says = np.array([[bool(re.search(rf"\b{re.escape(c)}\b", text, re.I)) for c in classes] for text in captions])
    named = np.where(says.sum(1) == 1, says.argmax(1), -1)
    return named.astype(np.int64) if (named >= 0).any() else None
