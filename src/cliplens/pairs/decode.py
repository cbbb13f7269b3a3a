"""From pairs to what the towers take: images decoded and preprocessed, bad pairs dropped from both sides at once."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from PIL import Image
from torch import Tensor

from cliplens.pairs.images import BadPairError, caption_of, open_image
from cliplens.pairs.pairs import Pairs
from cliplens.records import Pair

Preprocess = Callable[[Image.Image], Tensor]


@dataclass(frozen=True)
class Decoded:
    """The good pairs of a batch, in step, and the bad ones with the reason."""

    asked: Int64[np.ndarray, " place"]
    """The places asked for, bad ones included, in order."""
    places: Int64[np.ndarray, " pair"]
    """The places of the good pairs, in order."""
    ids: tuple[str, ...]
    captions: tuple[str, ...] | None
    images: Float[Tensor, "pair channel height width"] | None
    bad: tuple[tuple[Pair, str], ...]


@dataclass(frozen=True)
class Decoder:
    """Decodes batches of pairs; travels to worker processes, so it holds nothing but pairs and preprocess.

    `decoder[places]` is what `torch.utils.data.DataLoader` asks for.
    """

    pairs: Pairs
    preprocess: Preprocess | None
    """None where images are not wanted."""
    captions: bool
    """Whether captions are wanted."""

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, places: Int64[np.ndarray, " pair"]) -> Decoded:
        good: list[tuple[int, str, str]] = []
        bad: list[tuple[Pair, str]] = []
        images: list[Tensor] = []
        bulk = self._bulk(places)
        for place in places.tolist():
            pair = self.pairs[place] if bulk is None else Pair(*self._said(place))
            try:
                caption = caption_of(pair) if self.captions else ""
                if self.preprocess is not None and bulk is None:
                    images.append(self.preprocess(open_image(pair)))
            except BadPairError as error:
                bad.append((pair, error.reason))
                continue
            good.append((place, pair.id, caption))
        kept = np.array([g[0] for g in good], dtype=np.int64)
        pixels = torch.stack(images) if images else None
        if bulk is not None:
            pixels = bulk if len(kept) == len(places) else bulk[torch.from_numpy(np.isin(places, kept))]
        said = tuple(g[2] for g in good) if self.captions else None
        return Decoded(places, kept, tuple(g[1] for g in good), said, pixels, tuple(bad))

    def _said(self, place: int) -> tuple[str, None, str | None]:
        return self.pairs.id_at(place), None, self.pairs.caption_at(place)

    def _bulk(self, places: Int64[np.ndarray, " pair"]) -> Float[Tensor, "pair channel height width"] | None:
        if self.preprocess is None or not len(places):
            return None
        scale = _mean_and_std(self.preprocess)
        pixels = None if scale is None else self.pairs.pixels(places)
        if pixels is None or scale is None:
            return None
        images = normalised(pixels, *scale)
        # The preprocess is somebody else's: trusted to be no more than this only where the first image comes out equal.
        return images if torch.equal(images[0], self.preprocess(Image.fromarray(pixels[0]))) else None


def normalised(
    pixels: UInt8[np.ndarray, "image height width 3"], mean: Float[Tensor, "3"], std: Float[Tensor, "3"]
) -> Float[Tensor, "image 3 height width"]:
    """What torchvision's ToTensor and Normalize make of each image, to the last bit, many at once."""
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous().to(torch.float32).div_(255)
    return images.sub_(mean[:, None, None]).div_(std[:, None, None])


@lru_cache(maxsize=8)
def _mean_and_std(preprocess: Any) -> tuple[Tensor, Tensor] | None:
    """Mean and deviation of the Normalize at the end of a torchvision Compose; None for any other preprocess."""
    last = (getattr(preprocess, "transforms", None) or [None])[-1]
    mean, std = getattr(last, "mean", None), getattr(last, "std", None)
    return None if mean is None or std is None else (torch.as_tensor(mean), torch.as_tensor(std))
