"""Measure success and side effects of every method, at every dose and at the dose chosen on other scenes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from _steering.data import CHOOSING, LIMIT, SKIPPED, Sample, embedded, sample_clip
from _steering.methods import Chosen, Moved, methods
from _steering.readers import Reader
from cliplens.sites import Modality
from cliplens.world import SHARED, Scenes
from cliplens_plugins.steering import (
    best_within,
    dose_of_breach,
    dose_slope,
    effect,
)
from cliplens_plugins.steering.effects import Effect


def score(
    chosen: Chosen,
    sample: Sample,
    modality: Modality,
    attribute: str,
    readers: Mapping[str, Reader],
    n: int,
    seed: int,
    doses: Sequence[float],
) -> list[dict[str, Any]]:
    """Return the rows of the table: one per reader, method and dose, and those of edits of the scene itself."""
    latents = chosen.latents(modality, attribute)
    known = np.array([v for v, k in enumerate(latents) if k is not None])
    own = sample.scenes[attribute]
    covered = len(known)
    if covered < 2:  # no pair of latents to exchange, so only edits of many latents and directions
        known = np.arange(len(latents))
    rows, target = cases_of(own, known, n, seed)
    acts = sample.of(modality)[rows]
    found: list[dict[str, Any]] = []
    moves = methods(chosen, modality, attribute, seed)
    dose_of = {
        name: chosen_dose(chosen, modality, attribute, known, move, readers["probe"], seed, doses)
        for name, move in moves.items()
    }
    moved_scenes = sample.scenes.rows(rows).replaced(**{attribute: target})
    for reader_name, read in readers.items():
        before = read(acts, modality)
        base = {"modality": modality, "attribute": attribute, "reader": reader_name, "seed": seed}
        chosen_moves = moves if reader_name != "pictures" else {m: f for m, f in moves.items() if m not in SKIPPED}
        base |= {"latents": len(chosen.mean_codes(modality, attribute).latents)}
        base |= {"right at dose 0": float(np.mean(before[attribute] == own[rows])), "values": covered}
        for name, move in chosen_moves.items():
            effects, hits = [], []
            for dose in doses:
                after = read(grouped(acts, own[rows], target, move, dose), modality)
                effects.append(effect(before, after, attribute, target, dose=dose))
                hits.append(after[attribute] == target)
            found += rows_of({**base, "chosen": dose_of[name]}, name, effects, np.array(hits))
        for name, edited in scene_edits(sample, moved_scenes, rows, modality, attribute).items():
            after = read(edited, modality)
            one = effect(before, after, attribute, target, dose=1.0)
            found += rows_of({**base, "chosen": 1.0}, name, [one], (after[attribute] == target)[None])
    return found


def cases_of(own: np.ndarray, known: np.ndarray, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first n scenes with a known value, and a random other known value for each as its target."""
    rows = np.flatnonzero(np.isin(own, known))[:n]
    rng = np.random.default_rng(seed)
    return rows, np.array([rng.choice(known[known != own[r]]) for r in rows])


def chosen_dose(
    chosen: Chosen,
    modality: Modality,
    attribute: str,
    known: np.ndarray,
    move: Moved,
    probe: Reader,
    seed: int,
    doses: Sequence[float],
) -> float:
    """Return the dose with the most success on the selection split with side effects within the limit, by the probe.

    Return the smallest dose if none stays within the limit.
    """
    own = chosen.sample.scenes[attribute]
    rows, target = cases_of(own, known, CHOOSING, seed)
    acts = chosen.sample.of(modality)[rows]
    before, effects = probe(acts, modality), []
    for dose in doses:
        after = probe(grouped(acts, own[rows], target, move, dose), modality)
        effects.append(effect(before, after, attribute, target, dose=dose))
    best = best_within(effects, LIMIT)
    return min(doses) if best is None else best.dose


def grouped(acts: Tensor, own: np.ndarray, target: np.ndarray, move: Moved, dose: float) -> Tensor:
    """Move each row from its own value to its target."""
    out = acts.clone()
    for o, t in sorted(set(zip(own.tolist(), target.tolist(), strict=True))):
        rows = torch.from_numpy((own == o) & (target == t))
        out[rows] = move(acts[rows], o, t, dose)
    return out


def scene_edits(
    sample: Sample, moved: Scenes, rows: np.ndarray, modality: Modality, attribute: str
) -> dict[str, Tensor]:
    """Return the embeddings of two references that do not edit embeddings: the changed scene, and a text edit."""
    after = embedded(sample_clip(), moved)
    acts = sample.of(modality)[rows]
    edits = {"the scene itself changed (ceiling)": after.of(modality)}
    if attribute in SHARED and modality == "image":
        edits["prompt edit: caption after less before"] = acts + after.of("text") - sample.of("text")[rows]
    return edits


def rows_of(base: dict[str, Any], name: str, effects: Sequence[Effect], hits: np.ndarray) -> list[dict[str, Any]]:
    slope, low, high = dose_slope([e.dose for e in effects], hits)
    breach = dose_of_breach(effects, LIMIT)
    shared = {"slope": slope, "slope_low": low, "slope_high": high, "breach": breach}
    return [
        {
            **base,
            "method": name,
            "dose": e.dose,
            "success": e.success.share,
            "low": e.success.low,
            "high": e.success.high,
            "n": e.success.n,
            "worst": e.worst,
            "changed": {a: s.share for a, s in e.changed.items()},
            **shared,
        }
        for e in effects
    ]
