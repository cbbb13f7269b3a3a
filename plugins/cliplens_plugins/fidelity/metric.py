"""Measure explained variance, sparsity and dead latents of a dictionary."""

from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cliplens.contracts import Need
from cliplens.errors import InputError
from cliplens.records import Batch, Column, Findings, PairedActs
from cliplens.sites import MODALITIES, Modality
from cliplens.tally import Mergeable, MetricOfParts, Sums
from cliplens_plugins.fidelity.neighbours import neighbours
from cliplens_plugins.fidelity.variance import add_variance, explained_variance, explained_variance_legacy

_DENSITY = Column(
    "density",
    "Share of samples (images and captions together) on which the latent fires.",
    "fraction",
    "[0, 1]",
    "no samples",
)

_NEIGHBOURS = [
    Column("neighbours", "Indices of the latents with the most similar decoder rows, nearest first.", unit="index"),
    Column("neighbour_cosine", "Cosine of the decoder row with that of each neighbour.", range="[-1, 1]"),
]


class FidelityMetric(MetricOfParts):
    """Explained variance (pooled, per modality, legacy), L0, dead latents and cosine similarity of a dictionary."""

    name: ClassVar[str] = "fidelity"
    needs: ClassVar[frozenset[Need]] = frozenset()

    def __init__(self) -> None:
        self._sides: dict[str, Sums] = {side: Sums() for side in MODALITIES}

    def update(self, batch: Batch) -> None:
        """Add a batch."""
        for side in MODALITIES:
            codes = batch.codes.of(side)
            if codes is None:
                continue
            sums = self._sides[side]
            sums.add("coded", codes.n_rows)
            sums.add_per_latent("on", codes.latents, None, codes.d_sae)
            acts, back = _both(batch.acts, batch.reconstruction, side)
            add_variance(sums, acts, back)

    def parts(self) -> dict[str, Mergeable]:
        """Return the sums of each modality."""
        return {str(side): sums for side, sums in self._sides.items()}

    def findings(self, decoder: Float[Tensor, "d_sae d_in"] | None) -> Findings:
        """Return the headline figures, a table of them per modality, and each latent's density and neighbours."""
        seen = {side: sums for side, sums in self._sides.items() if "coded" in sums}
        if not seen:
            return Findings(notes=("Fidelity was not measured, because there were no codes.",))
        pooled = _figures(list(seen.values()))
        figures: dict[str, Any] = dict(pooled)
        rows: list[dict[str, Any]] = [{"data": "all", **pooled}]
        for side, sums in seen.items():
            own = _figures([sums])
            figures |= {f"{name}_{side}": value for name, value in own.items() if name != "dead_fraction"}
            rows.append({"data": side, **own})
        on = sum(s["on"] for s in seen.values())
        samples = sum(int(s["coded"]) for s in seen.values())
        columns: dict[str, np.ndarray] = {"density": (torch.as_tensor(on).double() / samples).cpu().numpy()}
        schema = [_DENSITY]
        if decoder is not None and len(decoder) > 1:
            columns["neighbours"], columns["neighbour_cosine"] = neighbours(decoder)
            schema += _NEIGHBOURS
        return Findings(columns, tuple(schema), figures, {"Fidelity of the dictionary": rows})


def _both(acts: PairedActs, reconstruction: PairedActs, side: Modality) -> tuple[Tensor, Tensor]:
    x, back = acts.of(side), reconstruction.of(side)
    if x is None or back is None:
        raise InputError(
            expected=f"activations and reconstructions of every {side} that has codes",
            found="codes alone",
            fix="pass batches with acts and reconstruction to tally",
        )
    return x, back


def _figures(sides: list[Sums]) -> dict[str, float]:
    rows = sum(int(s["coded"]) for s in sides)
    on = torch.stack([s["on"] for s in sides]).sum(0)
    return {
        "explained_variance": explained_variance(sides),
        "explained_variance_legacy": explained_variance_legacy(sides),
        "cosine": sum(float(s["cosine"]) for s in sides) / rows,
        "l0": float(on.sum()) / rows,
        "dead_fraction": float((on == 0).double().mean()),
    }
