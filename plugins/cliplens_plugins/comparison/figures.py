"""The figures by which dictionaries are compared: definitions, controls, and values with bootstrap replicates."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from cliplens import registry
from cliplens.contracts import Metric
from cliplens.records import Batch, LatentTable
from cliplens.run.controls import controls
from cliplens.sites import MODALITIES
from cliplens.tally import tally
from cliplens_plugins.comparison.noise import binomial_deviation
from cliplens_plugins.comparison.replicates import (
    explained_variance,
    l0,
    modality_shares,
    monosemanticity,
    recovery,
)
from cliplens_plugins.comparison.sample import Sample
from cliplens_plugins.comparison.subjects import Subject

NAN, INF = float("nan"), float("inf")
_INPUT = ("pairs", "model", "hook", "token")
_NAMES = ("name_image_on_captions", "name_text_on_images")
_SHUFFLED = ("names_from_images_on_captions_shuffled", "names_from_captions_on_images_shuffled")


@dataclass(frozen=True)
class Figure:
    """One column of the comparison."""

    name: str
    title: str
    about: str
    needs: tuple[str, ...]
    """Parts of the basis that must be equal for two values to be comparable."""
    better: int
    """1 where more is better, -1 where less is, 0 where neither."""
    control: str
    """Description of the control; "" where there is none."""
    bounds: tuple[float, float]
    """The least and the largest value that it can have; intervals end there."""
    sampled: str = "pictures"
    """The units of the bootstrap: pictures, latents, or "" where there is none."""


FIGURES: tuple[Figure, ...] = (
    Figure("l0", "L0", "Latents that fire per sample, on average.", _INPUT, 0, "", (0.0, INF)),
    Figure(
        "explained_variance",
        "Explained variance",
        "1 - squared error / variance about the mean, both modalities pooled. Range (-inf, 1].",
        (*_INPUT, "centring"),
        1,
        "a random dictionary of the same L0",
        (-INF, 1.0),
    ),
    Figure(
        "ms_image",
        "MS of images",
        "MonoSemanticity of images, mean over living latents (arXiv 2504.02821). Range [-1, 1].",
        ("pairs", "judge"),
        1,
        "a random dictionary of the same L0",
        (-1.0, 1.0),
    ),
    Figure(
        "ms_text",
        "MS of captions",
        "MonoSemanticity of captions, mean over living latents. Range [-1, 1].",
        ("pairs", "judge"),
        1,
        "a random dictionary of the same L0",
        (-1.0, 1.0),
    ),
    Figure(
        "single_modality_share",
        "Single-modality latents",
        "Share of living latents with a Modality Dominance Score below 0.2 or above 0.8 (arXiv 2502.14888).",
        ("pairs", "token"),
        0,
        "a random dictionary of the same L0",
        (0.0, 1.0),
    ),
    Figure(
        "recovery",
        "Modality recovery",
        "Share of latents with a known factor whose class (fixed cuts) is the true one; only where the truth is known.",
        ("pairs", "token"),
        1,
        "always the most frequent class",
        (0.0, 1.0),
    ),
    Figure(
        "names",
        "Names",
        "AUROC of each latent's name on held-out samples of the other modality, mean over named latents; 0.5 = chance.",
        ("pairs", "model", "namer", "vocabulary", "judge"),
        1,
        "shuffled names",
        (0.0, 1.0),
        "latents",
    ),
    Figure(
        "stability",
        "Stability over seeds",
        "Mean cosine of a latent's decoder row with its partner in the same dictionary of another seed (one to one).",
        ("model", "hook", "token"),
        1,
        "random mixtures of the rows",
        (-1.0, 1.0),
        "",
    ),
)


@dataclass(frozen=True)
class Value:
    """A figure of one dictionary."""

    value: float
    replicates: Float[np.ndarray, " replicate"] | None = None
    """The figure over other samples of pictures, the same samples for every dictionary; None where there are none."""
    control: float = NAN
    units: Float[np.ndarray, " unit"] | None = None
    """The values whose mean it is, where the units are latents."""
    floor: float = 0.0
    """The least standard deviation over seeds, for a share of latents; 0 for other figures."""


def measure(subject: Subject, sample: Sample) -> dict[str, Value]:
    """Return the figures of one dictionary on its sample. Figures that it cannot have are left out."""
    batch = subject.dictionary.batch(sample.raw, judged={"judge": sample.judged}, truth=sample.truth)
    batch = _with_units(batch, sample)
    control = _controls(subject, batch)
    found: dict[str, Value] = {}
    weights = np.concatenate([np.ones((len(sample.weights), 1)), sample.weights], axis=1)
    floor: dict[str, float] = {}
    drawn: dict[str, np.ndarray] = {"l0": l0(batch, weights), "explained_variance": explained_variance(batch, weights)}
    for modality in MODALITIES:
        if batch.codes.of(modality) is not None and sample.judged.of(modality) is not None:
            drawn[f"ms_{modality}"] = monosemanticity(batch, modality, weights)
    if batch.codes.image is not None and batch.codes.text is not None:
        scores, drawn["single_modality_share"] = modality_shares(batch, weights)
        floor["single_modality_share"] = _floor(drawn["single_modality_share"], ~np.isnan(scores[:, 0]))
        if sample.truth is not None:
            classes = _true_classes(batch, subject)
            drawn["recovery"], control["recovery"] = recovery(scores, classes)
            floor["recovery"] = _floor(drawn["recovery"], classes != "")
    for name, values in drawn.items():
        found[name] = Value(float(values[0]), values[1:], control.get(name, NAN), floor=floor.get(name, 0.0))
    if (names := _names(subject.table)) is not None:
        found["names"] = Value(float(names.mean()), None, _shuffled(subject.summary), names)
    return found


def _floor(share: Float[np.ndarray, " replicate"], counted: Bool[np.ndarray, " latent"]) -> float:
    return binomial_deviation(float(share[0]), int(counted.sum()))


def _with_units(batch: Batch, sample: Sample) -> Batch:
    from dataclasses import replace

    return replace(batch, codes=replace(batch.codes, units=sample.units))


def _controls(subject: Subject, batch: Batch) -> dict[str, float]:
    """Return the figures of a random dictionary: those of the run, or for a dictionary without a run computed here."""
    found = subject.summary.get("controls") or controls([batch], subject.dictionary.decoder)
    return {
        figure: float(row["untrained"]["control"])
        for figure, row in found.items()
        if row.get("untrained", {}).get("control") is not None
    }


def _true_classes(batch: Batch, subject: Subject) -> np.ndarray:
    """Return the true class of each latent, "" where none is known, as the metric `ground_truth` labels latents."""
    metrics = [(p, m) for p, m in registry.made("metrics", Metric) if p.name == "ground_truth"]
    table = tally([batch], metrics, decoder=subject.dictionary.decoder, merge=False).table
    if "truth_modality" not in table:
        return np.full(subject.dictionary.d_sae, "")
    return table["truth_modality"].astype(str)


def _names(table: LatentTable | None) -> Float[np.ndarray, " name"] | None:
    held = [table[name].astype(np.float64) for name in _NAMES if table is not None and name in table]
    if not held:
        return None
    every = np.concatenate(held)
    known = every[~np.isnan(every)]
    return known if len(known) else None


def _shuffled(summary: Mapping[str, Any]) -> float:
    known = [float(summary[name]) for name in _SHUFFLED if summary.get(name) is not None]
    return float(np.mean(known)) if known else NAN
