"""Torch or numpy in, the same kind out; float64 in between, where ratios and differences of sums are safe."""

from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from cliplens.errors import InputError, NonFiniteError

Array = TypeVar("Array", np.ndarray, Tensor)


def as_double(values: np.ndarray | Tensor, what: str, n_axes: int) -> Tensor:
    """The values as a float64 tensor, on their device.

    Raises:
        InputError: the number of axes is another.
        NonFiniteError: nan or inf among them.
    """
    tensor = values.detach() if isinstance(values, Tensor) else torch.as_tensor(np.asarray(values))
    if tensor.ndim != n_axes:
        axes = {1: "[latent]", 2: "[pair, latent]"}[n_axes]
        raise InputError(
            expected=f"{what} of shape {axes}", found=str(tuple(tensor.shape)), fix="give one row per pair"
        )
    tensor = tensor.to(torch.float64)
    if not bool(torch.isfinite(tensor).all()):
        raise NonFiniteError(
            expected=f"finite numbers as {what}",
            found="nan or inf",
            fix="look for the batch they come from and leave it out",
        )
    return tensor


def like(result: Tensor, given: Array) -> Array:
    """The result as the kind of array `given` is."""
    return result if isinstance(given, Tensor) else result.cpu().numpy()  # type: ignore[return-value]
