"""Prepared pictures of a batch. Pixels stay bytes until they are on the model's device, where they are normalised.

A float32 picture takes four times the memory of its bytes. Decoding in worker processes is limited by the amount that
is copied from process to process, so the bytes are sent and `ToTensor` and `Normalize` are applied after the copy.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from torch import Tensor

from cliplens.errors import InputError

Preprocess = Callable[[Image.Image], Tensor]
_TO_TENSOR = ("ToTensor", "MaybeToTensor")
"""Classes of torchvision and open_clip that scale bytes to [0, 1]."""


@dataclass(frozen=True)
class Scale:
    """Mean and standard deviation per channel of a `Normalize`."""

    mean: Float[Tensor, "3"]
    std: Float[Tensor, "3"]

    @torch.no_grad()
    def apply(self, pixels: UInt8[Tensor, "image height width 3"]) -> Float[Tensor, "image 3 height width"]:
        """Apply torchvision's `ToTensor` and `Normalize` to the pictures on their device, bit for bit."""
        images = pixels.permute(0, 3, 1, 2).contiguous().to(torch.float32)
        # CUDA multiplies by the rounded reciprocal of a Python number, but divides by a tensor.
        images.div_(torch.full((1,), 255.0, device=images.device))
        mean, std = self.mean.to(images.device), self.std.to(images.device)
        return images.sub_(mean[:, None, None]).div_(std[:, None, None])


@dataclass(frozen=True)
class Pictures:
    """Prepared pictures of a batch: bytes with the scale that is still to be applied, or finished float tensors."""

    values: UInt8[Tensor, "image height width 3"] | Float[Tensor, "image channel height width"]
    scale: Scale | None

    def __len__(self) -> int:
        return len(self.values)

    def on(self, device: torch.device | str = "cpu") -> Float[Tensor, "image channel height width"]:
        """Return the pictures on a device, as float tensors for the model."""
        moved = self.values.to(device, non_blocking=True)
        return moved if self.scale is None else self.scale.apply(moved)

    def keep(self, kept: Bool[np.ndarray, " picture"]) -> "Pictures":
        """Return the pictures for which the mask `kept` is true."""
        return replace(self, values=self.values[torch.from_numpy(kept)])

    def pin_memory(self) -> "Pictures":
        """Return a copy in page-locked memory, from which copies to a GPU run in the background."""
        return replace(self, values=self.values.pin_memory())


class Preparation:
    """Applies a preprocess to the pictures of one batch and gathers them.

    Where the preprocess is a torchvision `Compose` that ends in `ToTensor` and `Normalize`, only the steps before these
    two are applied here. The first picture is also prepared in full: where the two ways differ, `exact` is False and
    the batch must be prepared again with `split=False`.
    """

    def __init__(self, preprocess: Preprocess, *, split: bool = True) -> None:
        self._preprocess = preprocess
        self._steps, self._scale = _split(preprocess) if split else (None, None)
        self._prepared: list[np.ndarray] = []
        self._finished: list[Tensor] = []
        self.exact = True

    def add(self, picture: Image.Image) -> None:
        """Prepare a picture."""
        if self._steps is None or self._scale is None or not self.exact:
            self._finished.append(self._preprocess(picture))
            return
        cut: Any = picture
        for step in self._steps:
            cut = step(cut)
        self.exact = isinstance(cut, Image.Image) and cut.mode == "RGB"
        if not self.exact:
            return
        pixels = np.asarray(cut)
        if not self._prepared:
            whole = self._preprocess(picture)
            ours = self._scale.apply(torch.from_numpy(pixels.copy())[None])[0]
            self.exact = ours.shape == whole.shape and torch.equal(ours, whole)
        self._prepared.append(pixels)

    def pictures(self) -> Pictures | None:
        """Return the pictures added so far; None where there are none.

        Raises:
            InputError: the preprocess gives pictures of several shapes.
        """
        shapes = {tuple(p.shape) for p in self._prepared} | {tuple(p.shape) for p in self._finished}
        if len(shapes) > 1:
            raise InputError(
                expected="a preprocess that returns images of one shape",
                found=", ".join(map(str, sorted(shapes)[:3])),
                fix="crop or resize to one size in the preprocess",
            )
        if self._prepared:
            return Pictures(torch.from_numpy(np.stack(self._prepared)), self._scale)
        return Pictures(torch.stack(self._finished), None) if self._finished else None


def scale_of(preprocess: Any) -> Scale | None:
    """Return the scale of the `Normalize` at the end of a `Compose`; None for any other preprocess."""
    last = (getattr(preprocess, "transforms", None) or [None])[-1]
    return _scale(last)


@lru_cache(maxsize=8)
def _scale(normalize: Any) -> Scale | None:
    mean, std = getattr(normalize, "mean", None), getattr(normalize, "std", None)
    if mean is None or std is None:
        return None
    values = torch.as_tensor(mean, dtype=torch.float32), torch.as_tensor(std, dtype=torch.float32)
    return Scale(*values) if all(v.shape == (3,) for v in values) else None


def _split(preprocess: Preprocess) -> tuple[Sequence[Callable[[Any], Any]] | None, Scale | None]:
    """Return the steps before `ToTensor` and `Normalize`, and the scale; (None, None) where it cannot be split."""
    steps = list(getattr(preprocess, "transforms", None) or [])
    scale = scale_of(preprocess)
    if len(steps) < 2 or scale is None or type(steps[-2]).__name__ not in _TO_TENSOR:
        return None, None
    if type(steps[-1]).__name__ != "Normalize" or not all(callable(step) for step in steps):
        return None, None
    return steps[:-2], scale
