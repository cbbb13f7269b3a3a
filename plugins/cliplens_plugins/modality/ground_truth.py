"""Compare the modality scores with the ground truth, where it is known (the embedded world, emoji). Ours.

Pairs are split into halves by id. On one half, each latent is labelled with the factor value with which its activation
correlates best (on images: shared and image-only factors; on captions: shared and text-only factors), or left
unlabelled if no correlation reaches .35. Values with fewer than ten rows there are no labels. On the other half, the
scores are computed and compared with the modality of the label: `CrossD` for shared factors, `ImgD` for image-only
ones, `TextD` for text-only ones.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cliplens.contracts import Metric, Need
from cliplens.errors import InputError
from cliplens.keys import held_out
from cliplens.records import Batch, Findings, GroundTruth, Sharing, SparseCodes
from cliplens.sites import Modality
from cliplens.statistics import auroc
from cliplens.tally import MetricOfParts, Sums
from cliplens_plugins.modality.classes import classify, classify_fixed
from cliplens_plugins.modality.cofiring import phi
from cliplens_plugins.modality.columns import TRUTH
from cliplens_plugins.modality.mds import VARIANTS
from cliplens_plugins.modality.sums import add_pairs

MIN_CORRELATION = 0.35
LEAST_ROWS = 10
"""Rows of the labelling half that must have a factor value before a latent can be labelled with it. With one row, a
latent that fires there alone would correlate perfectly by chance."""
ONE_SIDED = 0.05
"""A latent counts as single-modality if its firing ratio is within this distance of 0 or 1."""
_SPLIT_SEED = 35
CLASS_OF: dict[Sharing, str] = {"shared": "CrossD", "image": "ImgD", "text": "TextD"}
_SEEN: dict[Modality, tuple[Sharing, ...]] = {"image": ("shared", "image"), "text": ("shared", "text")}


@dataclass(frozen=True)
class LatentLabels:
    """The factor value with which each latent correlates best. Unlabelled latents have factor -1."""

    factors: tuple[str, ...]
    factor: Int[np.ndarray, " d_sae"]
    value: Int[np.ndarray, " d_sae"]
    correlation: Float[np.ndarray, " d_sae"]

    @property
    def labelled(self) -> Bool[np.ndarray, " d_sae"]:
        """Whether each latent has a label."""
        return self.factor >= 0

    def classes(self, sharing: Mapping[str, Sharing]) -> np.ndarray:
        """Return the true class of each labelled latent; an empty string for the others."""
        of_factor = np.array([*(CLASS_OF[sharing[f]] for f in self.factors), ""])
        return of_factor[self.factor]


class GroundTruthMetric(MetricOfParts):
    """Accuracy and AUROC of every modality score against the known truth, coverage of its factors, split fraction."""

    name: ClassVar[str] = "ground_truth"
    needs: ClassVar[frozenset[Need]] = frozenset({"pairs", "truth"})

    def __init__(self) -> None:
        self._labelling = Sums()
        self._scoring = Sums()
        self._every = Sums()
        self._truth: GroundTruth | None = None

    def update(self, batch: Batch) -> None:
        """Add a batch."""
        truth, codes = batch.truth, batch.codes
        if truth is None or codes.image is None or codes.text is None:
            raise InputError(
                expected="pairs with ground truth",
                found="a batch without",
                fix="use this metric only with pairs of the embedded world, or of emoji",
            )
        self._truth = truth
        scoring = held_out(codes.keys, 0.5, _SPLIT_SEED)
        add_pairs(self._scoring, codes, scoring)
        self._every.add_per_latent("fires", codes.joint.latents, None, codes.d_sae)
        values = truth.rows(batch.ids)
        self._labelling.add("rows", int((~scoring).sum()))
        for factor, of_row in values.items():
            counts = np.bincount(of_row[~scoring], minlength=len(truth.values[factor]))
            self._labelling.add(f"n.{factor}", torch.as_tensor(counts))
        for side in _SEEN:
            self._add_side(side, getattr(codes, side), ~scoring, values, truth)

    def parts(self) -> dict[str, Sums]:
        """Return the sums of both halves and of all pairs. The truth is not stored, because every batch has it."""
        return {"labelling": self._labelling, "scoring": self._scoring, "every": self._every}

    def merge(self, other: Metric) -> None:
        """Add the sums and the truth of another instance."""
        super().merge(other)
        if isinstance(other, GroundTruthMetric):
            self._truth = self._truth or other._truth

    def findings(self, decoder: Float[Tensor, "d_sae d_in"] | None) -> Findings:
        """Return the labels as columns, and the tables of recovery and coverage."""
        truth = self._truth
        if truth is None:
            return Findings(notes=("No pairs with ground truth were seen.",))
        labels = self.labels()
        classes = labels.classes(truth.sharing)
        rows = [_recovery(name, score, classes) for name, score in self.scores().items()]
        coverage = [_coverage(labels, truth, sharing) for sharing in CLASS_OF]
        split, n_shared = self._split(classes)
        figures = {
            "labelled": int(labels.labelled.sum()),
            "unlabelled": int((self._alive() & ~labels.labelled).sum()),
            "split_fraction": split,
            "recovery": {row["score"]: {k: v for k, v in row.items() if k != "score"} for row in rows},
            "coverage": {row["factors"]: f"{row['covered']}/{row['values']}" for row in coverage},
        }
        note = _note(figures, n_shared)
        columns = {
            "truth": np.array([_say(labels, truth, k) for k in range(len(classes))], dtype=object),
            "truth_modality": classes.astype(object),
            "truth_correlation": labels.correlation,
        }
        tables = {"Recovery of the true modality": rows, "Coverage of the factors": coverage}
        return Findings(columns, TRUTH, {"ground_truth": figures}, tables, (note,))

    def labels(self, least: float = MIN_CORRELATION) -> LatentLabels:
        """Return the label of each latent, computed on the labelling half.

        Args:
            least: minimum correlation with a factor value for a label.
        """
        assert self._truth is not None
        factors = tuple(self._truth.factors)
        best = [self._best(factor) for factor in factors]
        by_factor = np.stack([correlation for correlation, _ in best])
        factor = np.where(np.isnan(by_factor), -np.inf, by_factor).argmax(0)
        latents = np.arange(by_factor.shape[1])
        correlation = by_factor[factor, latents]
        value = np.stack([values for _, values in best])[factor, latents]
        labelled = correlation >= least
        return LatentLabels(factors, np.where(labelled, factor, -1), np.where(labelled, value, -1), correlation)

    def _add_side(
        self,
        side: Modality,
        codes: SparseCodes,
        chosen: np.ndarray,
        values: Mapping[str, np.ndarray],
        truth: GroundTruth,
    ) -> None:
        sums, kept = self._labelling, torch.as_tensor(chosen, device=codes.rows.device)[codes.rows]
        rows, latents = codes.rows[kept], codes.latents[kept]
        acts = codes.values[kept].double()
        sums.add_per_latent(f"{side}.a", latents, acts, codes.d_sae)
        sums.add_per_latent(f"{side}.a2", latents, acts * acts, codes.d_sae)
        for factor, of_row in values.items():
            if truth.sharing[factor] in _SEEN[side]:
                n_values = len(truth.values[factor])
                cell = latents * n_values + torch.as_tensor(of_row, device=rows.device)[rows]
                sums.add_per_latent(f"{side}.{factor}", cell, acts, codes.d_sae * n_values)

    def _best(self, factor: str) -> tuple[np.ndarray, np.ndarray]:
        """Return each latent's best correlation with a value of the factor in either modality, and that value."""
        sides = [s for s in _SEEN if f"{s}.{factor}" in self._labelling]
        correlations = np.concatenate([self._correlations(side, factor) for side in sides], axis=1)
        safe = np.where(np.isnan(correlations), -np.inf, correlations)
        place = safe.argmax(1)
        n_values = correlations.shape[1] // len(sides)
        return correlations[np.arange(len(place)), place], place % n_values

    def _correlations(self, side: Modality, factor: str) -> Float[np.ndarray, "d_sae value"]:
        sums = self._labelling
        n, count = float(sums["rows"]), sums[f"n.{factor}"].double()
        mean = sums[f"{side}.a"] / n
        spread = (sums[f"{side}.a2"] / n - mean**2).clamp_min(0).sqrt()
        share = count / n
        together = sums[f"{side}.{factor}"].reshape(len(mean), len(count)) / n - mean[:, None] * share
        result: np.ndarray = (together / (spread[:, None] * (share * (1 - share)).sqrt())).cpu().numpy()
        enough = (count >= LEAST_ROWS).cpu().numpy()
        return np.where(np.isfinite(result) & enough, result, np.nan)

    def _alive(self) -> Bool[np.ndarray, " d_sae"]:
        """Return which latents fire on any scored pair, as in the column `alive`."""
        return (self._every["fires"] > 0).cpu().numpy()

    def scores(self) -> dict[str, Float[np.ndarray, " d_sae"]]:
        """Return every modality score on the scoring half; nan where a latent never fires."""
        scores = {name: variant(self._scoring).cpu().numpy() for name, variant in VARIANTS.items()}
        return {**scores, "cofiring": phi(self._scoring).cpu().numpy()}

    def _split(self, classes: np.ndarray) -> tuple[float, int]:
        ratio = VARIANTS["firing"](self._scoring).cpu().numpy()[classes == "CrossD"]
        one_sided = (ratio < ONE_SIDED) | (ratio > 1 - ONE_SIDED)
        return (float(one_sided.mean()) if len(ratio) else float("nan")), len(ratio)


def _auroc(scores: Float[np.ndarray, " n"], positive: Bool[np.ndarray, " n"]) -> float:
    return auroc(scores[positive], scores[~positive])


def _note(figures: Mapping[str, Any], n_shared: int) -> str:
    found = (
        f"Ground truth: {figures['labelled']} latents got a label on one half of the pairs, "
        f"{figures['unlabelled']} living ones got none"
    )
    if not n_shared:
        return f"{found}; no label was for a shared factor."
    return f"{found}; {figures['split_fraction']:.0%} of the {n_shared} for shared factors fire in one modality only."


def _recovery(name: str, score: np.ndarray, classes: np.ndarray) -> dict[str, Any]:
    """Return a table row of one score: accuracy of the three classes by both rules, and AUROC of shared latents."""
    known = (classes != "") & ~np.isnan(score)
    evenness = score if name == "cofiring" else -np.abs(score - 0.5)
    row: dict[str, Any] = {"score": name, "auroc": _auroc(evenness[known], classes[known] == "CrossD")}
    for rule, cut in (("fixed", classify_fixed), ("paper", classify)):
        right = cut(score)[known] == classes[known]
        row[f"accuracy_{rule}"] = float(right.mean()) if known.any() and name != "cofiring" else float("nan")
    return row


def _coverage(labels: LatentLabels, truth: GroundTruth, sharing: Sharing) -> dict[str, Any]:
    factors = [f for f in truth.factors if truth.sharing[f] == sharing]
    found = {(labels.factors[f], v) for f, v in zip(labels.factor, labels.value, strict=True) if f >= 0}
    covered = sum(1 for f in factors for v in range(len(truth.values[f])) if (f, v) in found)
    latents = sum(1 for f in labels.factor if f >= 0 and labels.factors[f] in factors)
    return {
        "factors": sharing,
        "covered": covered,
        "values": sum(len(truth.values[f]) for f in factors),
        "latents": latents,
    }


def _say(labels: LatentLabels, truth: GroundTruth, latent: int) -> str:
    if labels.factor[latent] < 0:
        return ""
    factor = labels.factors[labels.factor[latent]]
    return f"{factor}={truth.values[factor][labels.value[latent]]}"
