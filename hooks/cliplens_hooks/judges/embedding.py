"""What judges that run a model of their own share: weights behind a bar, samples batch by batch, rows of length 1."""

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
    """The model and, behind a bar, its weights: "ViT-B-32|/path/weights.safetensors".

    Raises:
        InputError: no model is named.
    """
    name, _, weights = source.partition("|")
    if not name:
        raise InputError(
            expected=f"the model that judges, such as {example}", found="none", fix="name it behind the colon"
        )
    return name, weights or None


def unit_images(
    images: Sequence[Image.Image], prepare: Callable[[Image.Image], Tensor], encode: Callable[[Tensor], Tensor]
) -> Float[Tensor, "image d"]:
    """Embeddings of prepared images, float32 on the CPU, at length 1."""
    given = (torch.stack([prepare(image.convert("RGB")) for image in part]) for part in batches(images))
    return unit_rows(encode(part) for part in given)


def unit_rows(parts: Iterator[Tensor]) -> Float[Tensor, "row d"]:
    """The parts below each other, float32 on the CPU, each row at length 1."""
    return torch.nn.functional.normalize(torch.cat([part.float().cpu() for part in parts]), dim=1)


def batches(samples: Sequence[Sample], size: int = BATCH) -> Iterator[Sequence[Sample]]:
    """The samples, `size` at a time."""
    return (samples[start : start + size] for start in range(0, len(samples), size))
