"""Compute the modality columns of the latent table."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cliplens.contracts import Need
from cliplens.records import Batch, Findings
from cliplens.sites import MODALITIES, Modality
from cliplens.statistics import REPLICATES
from cliplens.tally import Mergeable, MetricOfParts, Sums
from cliplens_plugins.modality.bootstrap import add_replicates
from cliplens_plugins.modality.classes import CLASSES, DECIDED, HIGH, LOW, class_counts, classify, classify_fixed
from cliplens_plugins.modality.cofiring import phi
from cliplens_plugins.modality.columns import CLASS_COLUMNS, FIRING, SCORES, UNCERTAINTY
from cliplens_plugins.modality.draw import PairsDraw
from cliplens_plugins.modality.interval import effective_pairs, interval
from cliplens_plugins.modality.mds import VARIANTS
from cliplens_plugins.modality.null import classify_significant, swap_q
from cliplens_plugins.modality.pictures import picture_sums
from cliplens_plugins.modality.sums import add_pairs

_VARIANT_OF = {
    "mds": "pairs",
    "mds_half": "half",
    "mds_eps": "eps",
    "mds_ratio_of_means": "ratio_of_means",
    "energy": "energy",
    "mds_firing": "firing",
}


class ModalityMetric(MetricOfParts):
    """MDS with all its variants, co-firing, firing rates, and classes by both rules, for every latent.

    With codes of one modality only, the columns are `alive` and the firing rate.
    """

    name: ClassVar[str] = "mds"
    needs: ClassVar[frozenset[Need]] = frozenset()

    def __init__(self, n_replicates: int = REPLICATES) -> None:
        self._n_replicates = n_replicates
        self._paired = Sums()
        self._sides = Sums()
        self._drawn = Sums()
        self._draw = PairsDraw()

    def update(self, batch: Batch) -> None:
        """Add a batch."""
        for side in MODALITIES:
            codes = batch.codes.of(side)
            if codes is not None:
                self._sides.add(f"{side}_rows", codes.n_rows)
                self._sides.add_per_latent(f"{side}_on", codes.latents, codes.values > 0, codes.d_sae)
                self._sides.add_per_latent("any", codes.latents, None, codes.d_sae)
        if batch.codes.image is not None and batch.codes.text is not None:
            add_pairs(self._paired, batch.codes)
            self._draw.update(batch.codes)
            if self._n_replicates:
                add_replicates(self._drawn, batch.codes, self._n_replicates)

    def findings(self, decoder: Float[Tensor, "d_sae d_in"] | None) -> Findings:
        """Return the columns, a table of class counts by each rule, and notes on how to read them."""
        if "any" not in self._sides:
            return Findings(notes=("Modality was not measured, because there were no codes.",))
        columns: dict[str, np.ndarray] = {"alive": (self._sides["any"] > 0).cpu().numpy()}
        for side in MODALITIES:
            columns[f"fire_{side}"] = self._rate(side)
        schema = list(FIRING)
        figures = {"alive": int(columns["alive"].sum())}
        if "pairs" not in self._paired:
            return Findings(
                columns, tuple(schema), figures, notes=("Modality scores need images and captions: one was given.",)
            )
        columns |= {name: VARIANTS[v](self._paired).cpu().numpy() for name, v in _VARIANT_OF.items()}
        columns["cofiring"] = phi(self._paired).cpu().numpy()
        fixed, paper = classify_fixed(columns["mds"]), classify(columns["mds"])
        columns |= {"modality": fixed.astype(object), "modality_paper": paper.astype(object)}
        pictures = picture_sums(self._paired, self._draw)
        bounds, q = interval(self._paired, self._drawn, pictures), swap_q(self._paired, pictures)
        both = (columns["fire_image"] > 0) & (columns["fire_text"] > 0)
        sure = classify_significant(columns["mds"], bounds.low, bounds.high, q, (LOW, HIGH), both)
        columns |= {
            "mds_pairs": self._paired["any"].cpu().numpy(),
            "mds_pictures": np.rint(pictures.pictures).astype(np.int64),
            "mds_effective": effective_pairs(self._paired, pictures),
            "mds_low": bounds.low,
            "mds_high": bounds.high,
            "mds_interval": np.where(bounds.wilson, "wilson", "percentile").astype(object),
            "mds_q": q,
            "modality_significant": sure.astype(object),
        }
        schema += [*SCORES, *UNCERTAINTY, *CLASS_COLUMNS]
        by_fixed, by_paper, by_sure = class_counts(fixed), class_counts(paper), class_counts(sure)
        counts = {f"{name}_significant": by_sure.get(name, 0) for name in DECIDED[:4]}
        counts |= {name: by_fixed[name] for name in CLASSES} | {f"{name}_paper": by_paper[name] for name in CLASSES[:3]}
        rules = {
            "fixed cuts 0.2, 0.8": by_fixed,
            "the paper's mean ± deviation": by_paper,
            "fixed, significant": by_sure,
        }
        tables = {"Modality classes": [_row(rule, counted) for rule, counted in rules.items()]}
        return Findings(columns, tuple(schema), {**figures, **counts}, tables)

    def parts(self) -> dict[str, Mergeable]:
        """Return the sums over pairs, over samples of each modality, and of the bootstrap replicates."""
        return {"paired": self._paired, "sides": self._sides, "replicates": self._drawn, "draw": self._draw}

    def _rate(self, side: Modality) -> np.ndarray:
        silent = torch.full(self._sides["any"].shape, torch.nan, dtype=torch.float64)
        if f"{side}_rows" not in self._sides:
            return silent.numpy()
        return (self._sides[f"{side}_on"].double() / self._sides[f"{side}_rows"]).cpu().numpy()


def _row(rule: str, counts: Mapping[str, int]) -> dict[str, int | str]:
    return {"rule": rule, **{name: counts.get(name, 0) for name in DECIDED}}
