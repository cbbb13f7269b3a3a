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

VARIES = 1e-11


def add_variance(sums: Sums, acts: Float[Tensor, "row d_in"], reconstruction: Float[Tensor, "row d_in"]) -> None:
    """Add what both forms need of a batch."""
    x, back = acts.double(), reconstruction.double()
    mean = x.mean(0)
    along, square = torch.mv(x, mean), (x * x).sum(1)
    error = (x - back).square_().sum(1)
    about_batch = square - 2 * along + mean @ mean
    defined = about_batch > 1e-12 * square
    sums.add("rows", len(x))
    sums.add("x", x.sum(0))
    sums.add("x2", square.sum())
    sums.add("error", error.sum())
    sums.add("legacy", (1 - error[defined] / about_batch[defined]).sum())
    sums.add("legacy_rows", int(defined.sum()))
    sums.add("cosine", _cosine(square, (back * back).sum(1), error).sum())


def _cosine(
    x2: Float[Tensor, " row"], back2: Float[Tensor, " row"], error: Float[Tensor, " row"]
) -> Float[Tensor, " row"]:
    """From squared lengths and the squared distance; 0 where a side is zero."""
    lengths = (x2 * back2).sqrt()
    return torch.where(lengths > 0, (x2 + back2 - error) / (2 * lengths).clamp_min(1e-300), 0.0)


def explained_variance(sides: Sequence[Sums]) -> float:
    """Return the explained variance about the mean of all the sides given, pooled.

    Range (-inf, 1]; below 0 where the mean would explain more. nan where the data do not vary: where the variance is
    less than 1e-11 of the mean square, which one pass in float64 cannot tell from rounding.
    """
    if not sides:
        return float("nan")
    n = sum(float(s["rows"]) for s in sides)
    total = torch.stack([s["x"] for s in sides]).sum(0)
    square = sum(float(s["x2"]) for s in sides)
    variance = square - float((total * total).sum()) / n
    error = sum(float(s["error"]) for s in sides)
    return 1 - error / variance if variance > VARIES * square else float("nan")


def explained_variance_legacy(sides: Sequence[Sums]) -> float:
    """Mean of per-token ratios about the mean of each batch; depends on how the data were cut into batches."""
    rows = sum(float(s["legacy_rows"]) for s in sides)
    return sum(float(s["legacy"]) for s in sides) / rows if rows else float("nan")
