"""Helpers of judges with a model: parse the spec, iterate over batches, normalise embeddings."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from cliplens.errors import InputError

Sample = TypeVar("Sample")
BATCH = 64


def name_and_weights(source: str, example: str) -> tuple[str, str | None]:
    """Split a spec into model and weights, which follow a bar: "ViT-B-32|/path/weights.safetensors".

    Raises:
        InputError: the spec names no model.
    """
    name, _, weights = source.partition("|")
    if not name:
        raise InputError(
            expected=f"the model of the judge, such as {example}", found="none", fix="write it after the colon"
        )
    return name, weights or None


def unit_images(
    images: Sequence[Image.Image], prepare: Callable[[Image.Image], Tensor], encode: Callable[[Tensor], Tensor]
) -> Float[Tensor, "image d"]:
    """Return the unit-norm embeddings of preprocessed images, float32, on the CPU."""
    given = (torch.stack([prepare(image.convert("RGB")) for image in part]) for part in batches(images))
    return unit_rows(encode(part) for part in given)


def unit_rows(parts: Iterator[Tensor]) -> Float[Tensor, "row d"]:
    """Concatenate parts, and return their rows with norm 1, float32, on the CPU."""
    return torch.nn.functional.normalize(torch.cat([part.float().cpu() for part in parts]), dim=1)


def batches(samples: Sequence[Sample], size: int = BATCH) -> Iterator[Sequence[Sample]]:
    """Iterate over the samples in batches of `size`."""
    return (samples[start : start + size] for start in range(0, len(samples), size))
