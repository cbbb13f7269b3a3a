"""Make edits that change one value of an attribute into another, from labelled samples. Ours.

Most single latents represent conjunctions (a count with a shape), so editing one changes both attributes. This edit is
the difference of the mean codes of the two values, on the few latents where it is largest. Score it on other samples
than those that were labelled.
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
    """Codes of labelled samples, in one modality."""
    values: Int[np.ndarray, " sample"]
    """Index of the value of each sample."""
    n_values: int
    least: float = 0.15
    """Minimum correlation of a latent with some value of the attribute to be edited."""

    def edits(self, own: int, target: int, most: int | None = FEW) -> list[Edit]:
        """Return edits that add the difference of mean codes between two values.

        Args:
            own: index of the value that the samples have.
            target: index of the value to change it into.
            most: maximum number of latents, those whose means differ most; None means all that correlate with it.
        """
        gap = self.means[target] - self.means[own]
        strongest = sorted(self.latents, key=lambda k: -abs(float(gap[k])))[:most]
        return [add([int(k)], float(gap[k])) for k in strongest]

    @cached_property
    def latents(self) -> Int[np.ndarray, " latent"]:
        """Indices of the latents that correlate with some value of the attribute."""
        each = [np.nan_to_num(label_correlation(self.codes, self.values == v)) for v in range(self.n_values)]
        return np.flatnonzero(np.abs(np.stack(each)).max(0) >= self.least)

    @cached_property
    def means(self) -> Float[Tensor, "value d_sae"]:
        """Mean code over the samples of each value; nan for a value without samples."""
        dense, labels = self.codes.dense(), torch.from_numpy(self.values)
        return torch.stack([dense[labels == v].mean(0) for v in range(self.n_values)])
