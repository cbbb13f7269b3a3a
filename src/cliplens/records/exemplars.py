"""The strongest samples of each latent, and its activation at each of their positions."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from cliplens.records.identity import Pair
from cliplens.sites import Modality


@dataclass(frozen=True)
class Exemplars:
    """The top samples of each latent in one modality, strongest first; ties are broken by pair id.

    `at[k, r]` is the index in `pairs` of the r-th sample of latent k; -1 if fewer samples fire.
    """

    modality: Modality
    pairs: tuple[Pair, ...]
    at: Int[np.ndarray, "d_sae top"]
    values: Float[np.ndarray, "d_sae top"]

    def of(self, latent: int) -> list[tuple[Pair, float]]:
        """Return the samples of one latent with their activations."""
        return [(self.pairs[p], float(v)) for p, v in zip(self.at[latent], self.values[latent], strict=True) if p >= 0]


@dataclass(frozen=True)
class PositionActivations:
    """The activations of one latent at the positions of one of its exemplars."""

    values: Float[np.ndarray, " position"]
    """Activation at each patch (row by row from the top left) or at each token of the caption."""
    grid: tuple[int, int] | None = None
    """Rows and columns of patches of an image; None for captions."""
    spans: tuple[tuple[int, int], ...] = ()
    """Start and end character of each token of a caption; empty for tokens that are not found in it."""


Positions = Mapping[tuple[Modality, int, int], PositionActivations]
"""Activations by modality, latent and rank of the exemplar."""
