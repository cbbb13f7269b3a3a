"""Compute the bridge between image and caption latents (Papadimitriou et al., arXiv 2504.11695).

    B[j, k] = E[I_j T_k] * <D_j, D_k>

The first factor is large if latent j fires on images whose captions make latent k fire; the second is the similarity of
their decoder rows. Only the strongest partner is reported: of an ImgD latent among the TextD latents, and vice versa.

The classes are known only after the last pair, and E[I_j T_k] of all j and k takes up to d_sae^2 numbers. The
expectation is therefore taken over a bounded draw of pairs (`PairsDraw`): all pairs while their codes fit, else a
uniform draw by hashed id.
"""

from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from cliplens.contracts import Need
from cliplens.records import Batch, Column, Findings
from cliplens.tally import Mergeable, MetricOfParts, Sums
from cliplens_plugins.modality.classes import classify_fixed
from cliplens_plugins.modality.draw import FIRINGS, PairsDraw
from cliplens_plugins.modality.mds import VARIANTS
from cliplens_plugins.modality.sums import add_ratios

STRONGEST = 20
_PAIRS = 8192
"""Pairs of latents whose decoder rows are multiplied at a time; their number is not bounded by that of latents."""
_SOURCE = "Papadimitriou et al., arXiv 2504.11695"
_COLUMNS = (
    Column(
        "bridge_partner",
        "For an ImgD latent, the TextD latent with the strongest bridge, and vice versa; -1 for other latents, or "
        "without a partner.",
        source=_SOURCE,
    ),
    Column(
        "bridge",
        "Strength of that bridge, E[I_j T_k] <D_j, D_k>, over a draw of up to 4,194,304 firings.",
        nan="no partner",
        source=_SOURCE,
    ),
)


def bridge(
    image_codes: Float[Tensor, "pair d_sae"],
    text_codes: Float[Tensor, "pair d_sae"],
    decoder: Float[Tensor, "d_sae d_in"],
) -> Float[Tensor, "d_sae d_sae"]:
    """Return the whole bridge matrix in float64, for small dictionaries.

    Entry [j, k] is unbounded; it is 0 if latent j never fires on an image while latent k fires on its caption.
    """
    together = image_codes.double().T @ text_codes.double() / len(image_codes)
    return together * (decoder.double() @ decoder.double().T)


class BridgeMetric(MetricOfParts):
    """The strongest bridges between ImgD and TextD latents (classes by the fixed cuts)."""

    name: ClassVar[str] = "bridge"
    needs: ClassVar[frozenset[Need]] = frozenset({"pairs"})

    def __init__(self, firings: int = FIRINGS) -> None:
        self._draw = PairsDraw(firings)
        self._sums = Sums()

    def update(self, batch: Batch) -> None:
        """Add a batch."""
        self._draw.update(batch.codes)
        add_ratios(self._sums, batch.codes)

    def parts(self) -> dict[str, Mergeable]:
        """Return the draw of pairs and the sums."""
        return {"draw": self._draw, "sums": self._sums}

    def findings(self, decoder: Float[Tensor, "d_sae d_in"] | None) -> Findings:
        """Return the partner of each ImgD and TextD latent as columns, and a table of the strongest bridges."""
        if "any" not in self._sums or decoder is None:
            return Findings(notes=("Bridges were not computed: they need pairs and the dictionary's decoder.",))
        classes = classify_fixed(VARIANTS["pairs"](self._sums).cpu().numpy())
        on_images = self._draw.matrix("image", classes == "ImgD")
        between = (on_images.T @ self._draw.matrix("text", classes == "TextD")).tocoo()
        image, text = between.row, between.col
        strength = between.data / self._draw.n_pairs * _products(decoder, image, text)
        partner, best = np.full(len(decoder), -1), np.full(len(decoder), np.nan)
        for one, other in ((image, text), (text, image)):
            order = np.lexsort((other, -strength))
            latents, first = np.unique(one[order], return_index=True)
            partner[latents], best[latents] = other[order][first], strength[order][first]
        order = np.lexsort((text, image, -strength))[:STRONGEST]
        table = [
            {"image latent": int(image[n]), "text latent": int(text[n]), "bridge": float(strength[n])} for n in order
        ]
        tables = {"Strongest bridges from images to captions": table} if table else {}
        return Findings(
            {"bridge_partner": partner, "bridge": best}, _COLUMNS, {"bridge_pairs": self._draw.n_pairs}, tables
        )


def _products(
    decoder: Float[Tensor, "d_sae d_in"], one: Int[np.ndarray, " pair"], other: Int[np.ndarray, " pair"]
) -> Float[np.ndarray, " pair"]:
    """Return the products of pairs of decoder rows in float64, a few pairs at a time."""
    out = np.empty(len(one))
    for start in range(0, len(one), _PAIRS):
        here = slice(start, start + _PAIRS)
        left, right = (decoder[torch.from_numpy(latents[here])].double().cpu().numpy() for latents in (one, other))
        out[here] = np.einsum("nd,nd->n", left, right)
    return out
