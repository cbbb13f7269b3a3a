"""Torch or numpy in, the same kind out; float64 in between, because the scores are differences of large sums."""

from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cliplens.errors import InputError, NonFiniteError

Array = TypeVar("Array", np.ndarray, Tensor)


def as_double(values: np.ndarray | Tensor, what: str) -> Float[Tensor, "row column"]:
    """The values as a float64 matrix, on their device.

    Raises:
        InputError: it is no matrix.
        NonFiniteError: nan or inf among them.
    """
    tensor = values.detach() if isinstance(values, Tensor) else torch.as_tensor(np.asarray(values))
    if tensor.ndim != 2:
        raise InputError(
            expected=f"{what} with one row per sample", found=f"shape {tuple(tensor.shape)}", fix="give a matrix"
        )
    tensor = tensor.to(torch.float64)
    if not bool(torch.isfinite(tensor).all()):
        raise NonFiniteError(
            expected=f"finite numbers as {what}",
            found="nan or inf",
            fix="look for the batch they come from and leave it out",
        )
    return tensor


def unit_rows(embeddings: Float[Tensor, "row d_judge"]) -> Float[Tensor, "row d_judge"]:
    """Embeddings of norm 1, normalised in float64.

    Raises:
        InputError: a row is zero, so it has no direction.
    """
    rows = embeddings.to(torch.float64)
    norms = rows.norm(dim=1, keepdim=True)
    if bool((norms == 0).any()):
        row = int((norms[:, 0] == 0).nonzero()[0, 0])
        raise InputError(
            expected="judge embeddings that have a direction", found=f"zeros in row {row}", fix="leave that sample out"
        )
    return rows / norms


def same_rows(a: Tensor, b: Tensor, what: str) -> None:
    """Refuse matrices that are not in step."""
    if len(a) != len(b):
        raise InputError(
            expected=f"{what} for the same samples",
            found=f"{len(a)} and {len(b)} rows",
            fix="give row i of both for sample i",
        )


def like(result: Tensor, given: Array) -> Array:
    """The result as the kind of array `given` is."""
    return result if isinstance(given, Tensor) else result.cpu().numpy()  # type: ignore[return-value]
