"""The modality columns of the latent table."""

from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cliplens.contracts import Metric
from cliplens.errors import InputError
from cliplens.records import Batch, Column, Findings
from cliplens.sites import Modality
from cliplens.tally import Sums
from cliplens_plugins.modality.classes import CLASSES, class_counts, classify, classify_fixed
from cliplens_plugins.modality.cofiring import phi
from cliplens_plugins.modality.mds import VARIANTS
from cliplens_plugins.modality.sums import add_pairs

_PAPER = "Yan et al., arXiv 2502.14888; reimplementation"
_SILENT = "never fires"
BOTH: tuple[Modality, ...] = ("image", "text")
_ALIVE = Column("alive", "Fired at least once on the pairs scored.", unit="bool")
_FIRES = {
    "image": Column(
        "fire_image", "Share of images the latent fires on.", unit="fraction", range="[0, 1]", nan="no images"
    ),
    "text": Column(
        "fire_text", "Share of captions the latent fires on.", unit="fraction", range="[0, 1]", nan="no captions"
    ),
}
_SCORES = {
    "mds": Column("mds", "Modality Dominance Score: mean share of the image in a pair's activation, over pairs where the latent fires. 0 = captions only, 1 = images only.", range="[0, 1]", nan=_SILENT, source=_PAPER),
    "mds_half": Column("mds_half", "The same with silent pairs counted as one half.", range="[0, 1]", nan=_SILENT, source=_PAPER),
    "mds_eps": Column("mds_eps", "The same with an epsilon in the denominator and silent pairs counted as 0; kept to show how it fails on sparse codes.", range="[0, 1]", nan=_SILENT, source=_PAPER),
    "mds_ratio_of_means": Column("mds_ratio_of_means", "Mean image activation over the sum of both means.", range="[0, 1]", nan=_SILENT, source="Papadimitriou et al., arXiv 2504.11695"),
    "energy": Column("energy", "Mean squared image activation over the sum of both; outside [.05, .95] called unimodal by its authors.", range="[0, 1]", nan=_SILENT, source="Dhimoila et al., arXiv 2602.06218"),
    "mds_firing": Column("mds_firing", "Image firing rate over the sum of both.", range="[0, 1]", nan="never fires above 0"),
    "cofiring": Column("cofiring", "Phi between firing on the image and firing on the caption of a pair; 0 where one side never fires.", range="[-1, 1]", nan=_SILENT),
}  # fmt: skip
_CLASSES = {
    "modality": Column("modality", "Class by fixed cuts: mds below 0.2 TextD, above 0.8 ImgD, else CrossD; dead where it never fires."),
    "modality_paper": Column("modality_paper", "Class by the paper's rule: beyond one standard deviation from the mean of living latents. It always finds some dominant latents, whatever the model.", source=_PAPER),
}  # fmt: skip
_VARIANT_OF = {
    "mds": "pairs",
    "mds_half": "half",
    "mds_eps": "eps",
    "mds_ratio_of_means": "ratio_of_means",
    "energy": "energy",
    "mds_firing": "firing",
}


class ModalityMetric(Metric):
    """Where each latent fires: MDS with all its variants, co-firing, firing rates, and classes by both rules.

    With one modality only, `alive` and its firing rate are all that can be said.
    """

    name: ClassVar[str] = "mds"
    needs: ClassVar[frozenset[Literal["pairs", "judge", "truth"]]] = frozenset()

    def __init__(self) -> None:
        self._paired = Sums()
        self._sides = Sums()

    def update(self, batch: Batch) -> None:
        """Take one batch in."""
        for side in BOTH:
            codes = batch.codes.of(side)
            if codes is not None:
                self._sides.add(f"{side}_rows", codes.n_rows)
                self._sides.add_per_latent(f"{side}_on", codes.latents, codes.values > 0, codes.d_sae)
                self._sides.add_per_latent("any", codes.latents, None, codes.d_sae)
        if batch.codes.image is not None and batch.codes.text is not None:
            add_pairs(self._paired, batch.codes)

    def merge(self, other: Metric) -> None:
        """Take in what another instance has seen."""
        if not isinstance(other, ModalityMetric):
            raise InputError(
                expected="another ModalityMetric", found=type(other).__name__, do="merge metrics of one kind"
            )
        self._paired.merge(other._paired)
        self._sides.merge(other._sides)

    def state(self) -> dict[str, Tensor]:
        """All sums seen so far."""
        paired = {f"paired.{k}": v for k, v in self._paired.state().items()}
        return {**paired, **{f"sides.{k}": v for k, v in self._sides.state().items()}}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what `state` gave."""
        for prefix, sums in (("paired.", self._paired), ("sides.", self._sides)):
            sums.load_state({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})

    def findings(self, decoder: Float[Tensor, "d_sae d_in"] | None) -> Findings:
        """The columns, the class table by both rules, and what to keep in mind when reading them."""
        if "any" not in self._sides:
            return Findings(notes=("No codes were seen, so nothing is said about modality.",))
        columns: dict[str, np.ndarray] = {"alive": (self._sides["any"] > 0).cpu().numpy()}
        for side in BOTH:
            columns[f"fire_{side}"] = self._rate(side)
        schema = [_ALIVE, *_FIRES.values()]
        figures = {"alive": int(columns["alive"].sum())}
        if "pairs" not in self._paired:
            return Findings(
                columns, tuple(schema), figures, notes=("Modality scores need images and captions: one was given.",)
            )
        columns |= {name: VARIANTS[v](self._paired).cpu().numpy() for name, v in _VARIANT_OF.items()}
        columns["cofiring"] = phi(self._paired).cpu().numpy()
        fixed, paper = classify_fixed(columns["mds"]), classify(columns["mds"])
        columns |= {"modality": fixed.astype(object), "modality_paper": paper.astype(object)}
        schema += [*_SCORES.values(), *_CLASSES.values()]
        by_fixed, by_paper = class_counts(fixed), class_counts(paper)
        counts = {name: by_fixed[name] for name in CLASSES} | {f"{name}_paper": by_paper[name] for name in CLASSES[:3]}
        tables = {
            "Modality classes": [_row("fixed cuts 0.2, 0.8", by_fixed), _row("the paper's mean ± deviation", by_paper)]
        }
        return Findings(columns, tuple(schema), {**figures, **counts}, tables)

    def _rate(self, side: Modality) -> np.ndarray:
        silent = torch.full(self._sides["any"].shape, torch.nan, dtype=torch.float64)
        if f"{side}_rows" not in self._sides:
            return silent.numpy()
        return (self._sides[f"{side}_on"].double() / self._sides[f"{side}_rows"]).cpu().numpy()


def _row(rule: str, counts: Mapping[str, int]) -> dict[str, int | str]:
    return {"rule": rule, **counts}
