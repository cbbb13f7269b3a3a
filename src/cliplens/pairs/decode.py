"""Decode and preprocess batches of pairs. A bad pair is dropped whole, image and caption together."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from PIL import Image
from torch import Tensor

from cliplens.errors import BadPairError, InputError
from cliplens.pairs.images import caption_of, open_image
from cliplens.pairs.pairs import Pairs
from cliplens.records import Pair

Preprocess = Callable[[Image.Image], Tensor]


@dataclass(frozen=True)
class Decoded:
    """The usable pairs of a batch, in step, and the bad ones with their reasons."""

    requested: Int64[np.ndarray, " requested"]
    """Indices of all requested pairs, in order."""
    indices: Int64[np.ndarray, " pair"]
    """Indices of the usable pairs, in order."""
    ids: tuple[str, ...]
    captions: tuple[str, ...] | None
    images: Float[Tensor, "pair channel height width"] | None
    bad: tuple[tuple[Pair, str], ...]


@dataclass(frozen=True)
class Decoder:
    """Decode batches of pairs: `decoder[indices]` is a `Decoded`.

    It is the dataset of a `torch.utils.data.DataLoader` and is sent to worker processes, so it holds only the pairs and
    the preprocess function.
    """

    pairs: Pairs
    preprocess: Preprocess | None
    """Function from picture to tensor; None skips images."""
    captions: bool
    """Whether captions are read."""

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, indices: Int64[np.ndarray, " pair"]) -> Decoded:
        good: list[tuple[int, str, str]] = []
        bad: list[tuple[Pair, str]] = []
        images: list[Tensor] = []
        bulk = self._bulk(indices)
        for index in indices.tolist():
            pair = self.pairs.unidentified(index) if bulk is None else self.pairs.without_image(index)
            try:
                caption = caption_of(pair) if self.captions else ""
                if self.preprocess is not None and bulk is None:
                    images.append(_prepared(self.preprocess, pair))
            except BadPairError as error:
                bad.append((pair, error.reason))
                continue
            good.append((index, pair.id, caption))
        kept = np.array([g[0] for g in good], dtype=np.int64)
        pixels = _stacked(images) if images else None
        if bulk is not None:
            pixels = bulk if len(kept) == len(indices) else bulk[torch.from_numpy(np.isin(indices, kept))]
        captions = tuple(g[2] for g in good) if self.captions else None
        return Decoded(indices, kept, tuple(g[1] for g in good), captions, pixels, tuple(bad))

    def _bulk(self, indices: Int64[np.ndarray, " pair"]) -> Float[Tensor, "pair channel height width"] | None:
        if self.preprocess is None or not len(indices):
            return None
        scale = _mean_and_std(self.preprocess)
        pixels = None if scale is None else self.pairs.pixels(indices)
        if pixels is None or scale is None:
            return None
        images = normalised(pixels, *scale)
        # The preprocess may do more than this: use the bulk result only where the first image agrees.
        return images if torch.equal(images[0], self.preprocess(Image.fromarray(pixels[0]))) else None


def _prepared(preprocess: Preprocess, pair: Pair) -> Tensor:
    image = open_image(pair)
    try:
        return preprocess(image)
    except Exception as error:
        # A preprocess raises anything on a picture it cannot take; the other pairs are still good.
        raise BadPairError(pair.id, f"preprocess failed on {image.width} x {image.height} pixels: {error}") from error


def _stacked(images: list[Tensor]) -> Float[Tensor, "pair channel height width"]:
    shapes = {tuple(image.shape) for image in images}
    if len(shapes) > 1:
        raise InputError(
            expected="a preprocess that returns images of one shape",
            found=", ".join(map(str, sorted(shapes)[:3])),
            fix="crop or resize to one size in the preprocess",
        )
    return torch.stack(images)


def normalised(
    pixels: UInt8[np.ndarray, "image height width 3"], mean: Float[Tensor, "3"], std: Float[Tensor, "3"]
) -> Float[Tensor, "image 3 height width"]:
    """Apply torchvision's ToTensor and Normalize to many images at once, bit for bit."""
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous().to(torch.float32).div_(255)
    return images.sub_(mean[:, None, None]).div_(std[:, None, None])


@lru_cache(maxsize=8)
def _mean_and_std(preprocess: Any) -> tuple[Tensor, Tensor] | None:
    """Return mean and std of the Normalize at the end of a torchvision Compose; None for any other preprocess."""
    last = (getattr(preprocess, "transforms", None) or [None])[-1]
    mean, std = getattr(last, "mean", None), getattr(last, "std", None)
    return None if mean is None or std is None else (torch.as_tensor(mean), torch.as_tensor(std))
