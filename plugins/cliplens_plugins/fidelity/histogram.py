"""How strongly each latent fires: a histogram of its activations per modality, in bins that any batch agrees on."""

from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from cliplens.contracts import Need
from cliplens.records import Batch, Column, Findings, SparseCodes
from cliplens.sites import MODALITIES
from cliplens.tally import MetricOfParts, Sums

BINS = 40
_PER_OCTAVE, _LOWEST = 2, -12
EDGES: Float[np.ndarray, " edge"] = 2.0 ** (np.arange(BINS + 1) / _PER_OCTAVE + _LOWEST)
"""Two bins per octave from 2^-12 to 2^8. What is weaker falls into the first bin, what is stronger into the last."""


class HistogramMetric(MetricOfParts):
    """Counts of activations per latent, modality and bin. Bins are fixed beforehand, so that counts merge exactly."""

    name: ClassVar[str] = "histogram"
    needs: ClassVar[frozenset[Need]] = frozenset()

    def __init__(self) -> None:
        self._counts = Sums()

    def update(self, batch: Batch) -> None:
        """Take one batch in."""
        for side in MODALITIES:
            codes = batch.codes.of(side)
            if codes is not None:
                cells = torch.bincount(_cells(codes), minlength=codes.d_sae * BINS)
                self._counts.add(side, cells.reshape(codes.d_sae, BINS))

    def parts(self) -> dict[str, Sums]:
        """Return the counts of each modality."""
        return {"counts": self._counts}

    def findings(self, decoder: Float[Tensor, "d_sae d_in"] | None) -> Findings:
        """A row of counts per latent, for each modality seen."""
        seen = self._counts.names()
        columns = {f"hist_{side}": self._counts[side].cpu().numpy() for side in seen}
        return Findings(columns, tuple(_column(side) for side in seen))


def _cells(codes: SparseCodes) -> Int64[Tensor, " firing"]:
    """Latent and bin of each firing as one number; negative activations count by their size."""
    octave = codes.values.detach().abs().double().log2()
    bins = ((octave - _LOWEST) * _PER_OCTAVE).floor().clamp(0, BINS - 1).long()
    return codes.latents * BINS + bins


def _column(side: str) -> Column:
    what = {"image": "images", "text": "captions"}[side]
    return Column(
        f"hist_{side}",
        f"Histogram of activations on {what}: {BINS} counts, bin i from 2^(i/2 - 12) to 2^((i+1)/2 - 12).",
        unit="count",
        range="0 ..",
    )
