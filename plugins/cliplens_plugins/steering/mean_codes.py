"""Edits that change one value of an attribute into another, from labelled samples.

Single latents of most attributes are conjunctions (a count with a shape) and move both. This edit is the difference of
the mean codes of the two values, on the few latents where it is largest: a difference of means in latents that can be
looked at one by one. Ours. Label other samples than those it is scored on.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from cliplens.edits import Edit, add
from cliplens.records import SparseCodes
from cliplens_plugins.steering.selection import label_correlation

FEW = 8


@dataclass(frozen=True, eq=False)
class MeanCodes:
    """Mean codes per value of an attribute."""

    codes: SparseCodes
    """Of labelled samples, in one modality."""
    values: Int[np.ndarray, " sample"]
    """The index of each sample's value."""
    n_values: int
    least: float = 0.15
    """Correlation with some value from which a latent takes part."""

    def edits(self, own: int, target: int, most: int | None = FEW) -> list[Edit]:
        """Return edits that add the difference of mean codes between two values.

        Args:
            own: the value samples have.
            target: the value to change it into.
            most: number of latents, those whose means differ most; None takes all that correlate with the attribute.
        """
        gap = self.means[target] - self.means[own]
        strongest = sorted(self.latents, key=lambda k: -abs(float(gap[k])))[:most]
        return [add([int(k)], float(gap[k])) for k in strongest]

    @cached_property
    def latents(self) -> Int[np.ndarray, " latent"]:
        """The latents that correlate with some value of the attribute."""
        each = [np.nan_to_num(label_correlation(self.codes, self.values == v)) for v in range(self.n_values)]
        return np.flatnonzero(np.abs(np.stack(each)).max(0) >= self.least)

    @cached_property
    def means(self) -> Float[Tensor, "value d_sae"]:
        """The mean code over the samples of each value; nan for a value without samples."""
        dense, labels = self.codes.dense(), torch.from_numpy(self.values)
        return torch.stack([dense[labels == v].mean(0) for v in range(self.n_values)])
