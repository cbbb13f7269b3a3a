"""Measure the modality gap of a run, with and without the latents of one modality."""

from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cliplens.contracts import Need
from cliplens.keys import hashed
from cliplens.records import Batch, Findings
from cliplens.sites import MODALITIES
from cliplens.tally import Mergeable, MetricOfParts, Sums
from cliplens_plugins.modality.classes import classify_fixed
from cliplens_plugins.modality.draw import PairsDraw
from cliplens_plugins.modality.gap import modality_gap
from cliplens_plugins.modality.mds import VARIANTS
from cliplens_plugins.modality.sums import add_ratios

PAIRS = 1024
_FIRINGS = 1 << 17
_SEED = 29


class GapMetric(MetricOfParts):
    """The gap between raw image and caption activations of up to 1,024 pairs, drawn by hashed id.

    It is measured on the activations as they are, after subtracting the contributions of ImgD and TextD latents (fixed
    cuts), and, as the control, after subtracting those of as many CrossD latents. The reconstruction error is kept. If
    the dictionary was trained on centred activations, the difference of the means is in no latent, so most of the gap
    remains.
    """

    name: ClassVar[str] = "gap"
    needs: ClassVar[frozenset[Need]] = frozenset({"pairs", "raw"})

    def __init__(self, pairs: int = PAIRS) -> None:
        self._draw = PairsDraw(_FIRINGS, pairs)
        self._sums = Sums()

    def update(self, batch: Batch) -> None:
        """Add a batch."""
        self._draw.update(batch.codes, batch.raw)
        add_ratios(self._sums, batch.codes)

    def parts(self) -> dict[str, Mergeable]:
        """Return the draw of pairs and the sums."""
        return {"draw": self._draw, "sums": self._sums}

    def findings(self, decoder: Float[Tensor, "d_sae d_in"] | None) -> Findings:
        """Return the table of gaps, with and without the latents of one modality."""
        if decoder is None or "any" not in self._sums:
            return Findings(notes=("The modality gap was not measured: it needs pairs and the dictionary's decoder.",))
        classes = classify_fixed(VARIANTS["pairs"](self._sums).cpu().numpy())
        one_sided = (classes == "ImgD") | (classes == "TextD")
        removed = {"as they are": np.zeros(len(classes), dtype=bool), "without ImgD and TextD latents": one_sided}
        shared = np.flatnonzero(classes == "CrossD")
        if len(shared) and one_sided.any():
            order = np.argsort(hashed(shared.astype(np.uint64), _SEED))
            control = np.zeros(len(classes), dtype=bool)
            control[shared[order][: one_sided.sum()]] = True
            removed["without as many CrossD latents"] = control
        rows = [
            {"activations": what, "latents": int(gone.sum()), **self._gap(decoder, gone)}
            for what, gone in removed.items()
        ]
        figures = {row["activations"]: {k: v for k, v in row.items() if k != "activations"} for row in rows}
        return Findings(figures={"modality_gap": figures}, tables={"Modality gap": rows})

    def _gap(self, decoder: Float[Tensor, "d_sae d_in"], removed: Bool[np.ndarray, " d_sae"]) -> dict[str, float]:
        written = decoder[torch.as_tensor(removed)].double().cpu().numpy()
        sides = (self._draw.payload(m) - self._draw.matrix(m, removed)[:, removed] @ written for m in MODALITIES)
        image, text = (torch.as_tensor(np.asarray(side)) for side in sides)
        return modality_gap(image, text, units=self._draw.ranks)
