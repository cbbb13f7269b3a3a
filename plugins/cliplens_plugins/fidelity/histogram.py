"""Count the activations of each latent in a histogram per modality, with fixed bins."""

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
"""Two bins per octave from 2^-12 to 2^8. Weaker activations are counted in the first bin, stronger ones in the last."""


class HistogramMetric(MetricOfParts):
    """Counts activations per latent, modality and bin. The bins are fixed, so counts of different batches add up."""

    name: ClassVar[str] = "histogram"
    needs: ClassVar[frozenset[Need]] = frozenset()

    def __init__(self) -> None:
        self._counts = Sums()

    def update(self, batch: Batch) -> None:
        """Add a batch."""
        for side in MODALITIES:
            codes = batch.codes.of(side)
            if codes is not None:
                cells = torch.bincount(_cells(codes), minlength=codes.d_sae * BINS)
                self._counts.add(side, cells.reshape(codes.d_sae, BINS))

    def parts(self) -> dict[str, Sums]:
        """Return the counts of each modality."""
        return {"counts": self._counts}

    def findings(self, decoder: Float[Tensor, "d_sae d_in"] | None) -> Findings:
        """Return a column of counts per bin for each modality seen."""
        seen = self._counts.names()
        columns = {f"hist_{side}": self._counts[side].cpu().numpy() for side in seen}
        return Findings(columns, tuple(_column(side) for side in seen))


def _cells(codes: SparseCodes) -> Int64[Tensor, " firing"]:
    """Return the latent and the bin of each firing as one index; negative activations count by absolute value."""
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
