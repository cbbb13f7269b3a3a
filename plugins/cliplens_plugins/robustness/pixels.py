"""Pixels in [0, 1] behind the preprocess of a model: attacks change pixels, and the model normalises them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from cliplens.errors import InputError

Pixels = Float[Tensor, "sample 3 height width"]
_SIDE = 64
_TOLERANCE = 0.02


@dataclass(frozen=True)
class PixelScale:
    """The normalisation at the end of a preprocess: input = pixel * scale + offset, per channel.

    >>> scale = PixelScale(torch.full((3,), 4.0), torch.full((3,), -2.0))
    >>> scale.to_inputs(torch.full((1, 3, 1, 1), 0.5)).flatten().tolist()
    [0.0, 0.0, 0.0]
    """

    scale: Float[Tensor, " 3"]
    offset: Float[Tensor, " 3"]

    def to_inputs(self, pixels: Pixels) -> Pixels:
        """Return the inputs of the model for pixels in [0, 1]. Gradients flow through it."""
        scale, offset = (v.to(pixels)[:, None, None] for v in (self.scale, self.offset))
        return pixels * scale + offset

    def to_pixels(self, inputs: Pixels) -> Pixels:
        """Return the pixels of preprocessed images, float32, clipped to [0, 1]."""
        scale, offset = (v.to(inputs.device)[:, None, None] for v in (self.scale, self.offset))
        return ((inputs.float() - offset) / scale).clamp(0, 1)


def pixel_scale(preprocess: Callable[[Image.Image], Any] | None) -> PixelScale:
    """Return the normalisation of a preprocess, measured on a black, a grey and a white picture.

    So it does not matter which library the preprocess is from. Resizing and cropping stay outside the attack: pixels
    are those the model sees after it.

    Raises:
        InputError: there is no preprocess, or what it does to a pixel is not one factor and one offset per channel.

    >>> pixel_scale(lambda picture: torch.full((3, 2, 2), picture.getpixel((0, 0))[0] / 127.5 - 1)).offset.tolist()
    [-1.0, -1.0, -1.0]
    """
    if preprocess is None:
        raise InputError(
            expected="a model with a preprocess for pictures",
            found="none",
            fix="pass it: cliplens.wrap(model, preprocess=...)",
        )
    black, grey, white = (_flat(preprocess, value) for value in (0, 102, 255))
    scale = white - black
    if (scale.abs() < 1e-6).any() or ((black + scale * 0.4 - grey).abs() > _TOLERANCE * scale.abs()).any():
        raise InputError(
            expected="a preprocess that ends in a factor and an offset per channel",
            found=f"{tuple(black.tolist())} for black, {tuple(grey.tolist())} for grey and {tuple(white.tolist())} for"
            " white",
            fix="wrap the model with a preprocess that resizes, scales to [0, 1] and normalises",
        )
    return PixelScale(scale, black)


def picture_of(pixels: Float[Tensor, "3 height width"]) -> Image.Image:
    """Return pixels in [0, 1] as a picture of whole levels."""
    levels = (pixels.detach().float().clamp(0, 1) * 255).round().byte().cpu()
    return Image.fromarray(levels.permute(1, 2, 0).numpy())


def _flat(preprocess: Callable[[Image.Image], Any], level: int) -> Float[Tensor, " 3"]:
    """Return the value of each channel for a picture of one grey."""
    found = torch.as_tensor(preprocess(Image.new("RGB", (_SIDE, _SIDE), (level,) * 3))).float()
    if found.ndim != 3 or found.shape[0] != 3:
        raise InputError(
            expected="a preprocess that returns Float[Tensor, '3 height width']",
            found=f"a tensor of shape {tuple(found.shape)}",
            fix="wrap the model with such a preprocess",
        )
    middle: Tensor = found[:, found.shape[1] // 2, found.shape[2] // 2]
    return middle
