"""Explained variance, in the form that is right and in the one that is not.

    1 - sum |x - x_hat|^2 / sum |x - mean|^2        over the whole data

The pooled mean of images and captions counts the gap between them as variance, so each modality is also scored about
its own mean. The legacy form, the mean over tokens of 1 - |x - x_hat|^2 / |x - batch mean|^2 (SAELens'
`explained_variance_legacy`), is kept beside them: it has read 0.98 where the true one was 0.78.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from cliplens.tally import Sums


def add_variance(sums: Sums, acts: Float[Tensor, "row d_in"], reconstruction: Float[Tensor, "row d_in"]) -> None:
    """Add what both forms need of a batch."""
    x, error = acts.double(), (acts.double() - reconstruction.double()).square().sum(1)
    sums.add("rows", len(x))
    sums.add("x", x.sum(0))
    sums.add("x2", x.square().sum())
    sums.add("error", error.sum())
    about_batch = (x - x.mean(0)).square().sum(1)
    defined = about_batch > 0
    sums.add("legacy", (1 - error[defined] / about_batch[defined]).sum())
    sums.add("legacy_rows", int(defined.sum()))
    sums.add("cosine", torch.nn.functional.cosine_similarity(x, reconstruction.double(), dim=1).sum())


def explained_variance(sides: Sequence[Sums]) -> float:
    """About the mean of all the sides given, pooled; nan where the data do not vary."""
    if not sides:
        return float("nan")
    n = sum(float(s["rows"]) for s in sides)
    total = torch.stack([s["x"] for s in sides]).sum(0)
    variance = sum(float(s["x2"]) for s in sides) - float((total * total).sum()) / n
    error = sum(float(s["error"]) for s in sides)
    return 1 - error / variance if variance > 0 else float("nan")


def explained_variance_legacy(sides: Sequence[Sums]) -> float:
    """Mean of per-token ratios about the mean of each batch; depends on how the data were cut into batches."""
    rows = sum(float(s["legacy_rows"]) for s in sides)
    return sum(float(s["legacy"]) for s in sides) / rows if rows else float("nan")
