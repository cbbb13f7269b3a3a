"""Decode and preprocess batches of pairs. A bad pair is dropped whole, image and caption together."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int64
from PIL import Image
from torch import Tensor

from cliplens.errors import BadPairError
from cliplens.pairs.images import caption_of, open_image
from cliplens.pairs.pairs import Pairs
from cliplens.pairs.pixels import Pictures, Preparation, Preprocess, scale_of
from cliplens.records import Pair


@dataclass(frozen=True)
class Decoded:
    """The usable pairs of a batch, in step, and the bad ones with their reasons."""

    requested: Int64[np.ndarray, " requested"]
    """Indices of all requested pairs, in order."""
    indices: Int64[np.ndarray, " pair"]
    """Indices of the usable pairs, in order."""
    ids: tuple[str, ...]
    captions: tuple[str, ...] | None
    pictures: Pictures | None
    bad: tuple[tuple[Pair, str], ...]

    @property
    def images(self) -> Float[Tensor, "pair channel height width"] | None:
        """The prepared pictures on the CPU. `pictures.on(device)` prepares them on another device."""
        return None if self.pictures is None else self.pictures.on("cpu")

    def pin_memory(self) -> "Decoded":
        """Return a copy with the pictures in page-locked memory. `torch.utils.data.DataLoader` calls this."""
        return self if self.pictures is None else replace(self, pictures=self.pictures.pin_memory())


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
        found = self._decoded(indices, split=True)
        # The steps of this preprocess are not all it does: apply the whole of it.
        return found if found is not None else self._decoded(indices, split=False)  # type: ignore[return-value]

    def _decoded(self, indices: Int64[np.ndarray, " pair"], *, split: bool) -> Decoded | None:
        good: list[tuple[int, str, str]] = []
        bad: list[tuple[Pair, str]] = []
        bulk = self._bulk(indices) if split else None
        prepared = None if self.preprocess is None or bulk is not None else Preparation(self.preprocess, split=split)
        for index in indices.tolist():
            pair = self.pairs.unidentified(index) if bulk is None else self.pairs.without_image(index)
            try:
                caption = caption_of(pair) if self.captions else ""
                if prepared is not None:
                    _prepare(prepared, pair)
            except BadPairError as error:
                bad.append((pair, error.reason))
                continue
            if prepared is not None and not prepared.exact:
                return None
            good.append((index, pair.id, caption))
        kept = np.array([g[0] for g in good], dtype=np.int64)
        pictures = None if prepared is None else prepared.pictures()
        if bulk is not None:
            pictures = bulk if len(kept) == len(indices) else bulk.keep(np.isin(indices, kept))
        captions = tuple(g[2] for g in good) if self.captions else None
        return Decoded(indices, kept, tuple(g[1] for g in good), captions, pictures, tuple(bad))

    def _bulk(self, indices: Int64[np.ndarray, " pair"]) -> Pictures | None:
        if self.preprocess is None or not len(indices):
            return None
        scale = scale_of(self.preprocess)
        pixels = None if scale is None else self.pairs.pixels(indices)
        if pixels is None or scale is None:
            return None
        pictures = Pictures(torch.from_numpy(pixels), scale)
        first = Pictures(pictures.values[:1], scale).on("cpu")[0]
        # The preprocess may do more than this: use the bulk result only where the first picture agrees.
        return pictures if torch.equal(first, self.preprocess(Image.fromarray(pixels[0]))) else None


def _prepare(prepared: Preparation, pair: Pair) -> None:
    image = open_image(pair)
    try:
        prepared.add(image)
    except Exception as error:
        # A preprocess raises anything on a picture it cannot take; the other pairs are still good.
        raise BadPairError(pair.id, f"preprocess failed on {image.width} x {image.height} pixels: {error}") from error
