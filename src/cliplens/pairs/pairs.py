"""Pairs of images and captions in step, read column by column: paths and handles, never all the pixels."""

import hashlib
import operator
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import SupportsIndex, overload

import numpy as np
from jaxtyping import Int64, UInt8

from cliplens.errors import PairsError
from cliplens.records import ImageSource, Pair


class LazyImages(Sequence[ImageSource | None]):
    """A column of images that are found when they are asked for: in a tar, in a dataset, by drawing them."""

    @property
    @abstractmethod
    def sha256(self) -> str:
        """What the images are, for `Pairs.sha256`, without reading them all."""


class ImageColumn(LazyImages):
    """A lazy column that gives many images at once faster than one by one."""

    @abstractmethod
    def pixels(self, rows: Int64[np.ndarray, " image"]) -> UInt8[np.ndarray, "image height width 3"]:
        """The images of the rows as RGB, the very pixels that opening them one by one gives."""


class Pairs(Sequence[Pair]):
    """Images and captions in step. Indexing gives a `Pair`; a slice, or `take`, gives `Pairs` with the same ids.

    Ids are unique: where the given ones are not, the second and later ones get `#1`, `#2`, ... in order.
    """

    def __init__(
        self,
        ids: Iterable[str],
        images: Sequence[ImageSource | None] | None,
        captions: Sequence[str | None] | None,
        *,
        name: str = "pairs",
    ) -> None:
        self.name = name
        self._ids = unique_ids(ids)
        self._images = images
        self._captions = captions
        for what, column in (("image", images), ("caption", captions)):
            if column is not None and len(column) != len(self._ids):
                raise PairsError(
                    expected=f"one {what} per id ({len(self._ids)})",
                    found=f"{len(column)}",
                    do=f"give every pair its {what}, or None where it has none",
                )
        self._rows: Int64[np.ndarray, " pair"] | None = None

    def __len__(self) -> int:
        return len(self._ids) if self._rows is None else len(self._rows)

    @overload
    def __getitem__(self, index: SupportsIndex) -> Pair: ...
    @overload
    def __getitem__(self, index: slice) -> "Pairs": ...
    def __getitem__(self, index: SupportsIndex | slice) -> "Pair | Pairs":
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        row = self._row(index)
        image = None if self._images is None else self._images[row]
        caption = None if self._captions is None else self._captions[row]
        return Pair(self._ids[row], image, caption)

    def __iter__(self) -> Iterator[Pair]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return f"Pairs({self.name!r}, {len(self)})"

    @property
    def ids(self) -> tuple[str, ...]:
        """The id of each pair, in order."""
        return tuple(self._ids) if self._rows is None else tuple(self._ids[r] for r in self._rows)

    @property
    def captions(self) -> list[str | None]:
        """The caption of each pair, in order."""
        if self._captions is None:
            return [None] * len(self)
        return [self.caption_at(i) for i in range(len(self))]

    def id_at(self, index: SupportsIndex) -> str:
        """The id of one pair, its image left alone."""
        return self._ids[self._row(index)]

    def caption_at(self, index: SupportsIndex) -> str | None:
        """The caption of one pair, its image left alone."""
        return None if self._captions is None else self._captions[self._row(index)]

    @property
    def has_images(self) -> bool:
        """Whether there is a column of images at all."""
        return self._images is not None

    @property
    def has_captions(self) -> bool:
        """Whether there is a column of captions at all."""
        return self._captions is not None

    def take(self, rows: Sequence[int] | np.ndarray) -> "Pairs":
        """The pairs at the given places, in that order, their ids unchanged; a mask of booleans works too."""
        picked = np.asarray(rows)
        picked = np.flatnonzero(picked) if picked.dtype == bool else picked.astype(np.int64)
        taken = object.__new__(Pairs)
        taken.__dict__.update({k: v for k, v in self.__dict__.items() if k != "sha256"})
        taken._rows = picked if self._rows is None else self._rows[picked]
        return taken

    def pixels(self, rows: Sequence[int] | np.ndarray) -> UInt8[np.ndarray, "image height width 3"] | None:
        """The images at the given places at once, as RGB; None when the source can only open them one by one."""
        if not isinstance(self._images, ImageColumn):
            return None
        picked = np.asarray(rows, dtype=np.int64)
        return self._images.pixels(picked if self._rows is None else self._rows[picked])

    @cached_property
    def sha256(self) -> str:
        """Hash over ids, captions and what the images are: names and sizes of files, pixels of images in memory.

        A file's bytes are not read: an image altered in place without changing its size goes unnoticed.
        """
        digest = hashlib.sha256()
        lazy = isinstance(self._images, LazyImages)
        if isinstance(self._images, LazyImages):
            digest.update(self._images.sha256.encode())
        for i in range(len(self)):
            row = self._row(i)
            caption = None if self._captions is None else self._captions[row]
            plain = None if self._images is None or lazy else self._images[row]
            for part in (self._ids[row].encode(), b"" if caption is None else caption.encode(), _print_of(plain)):
                digest.update(len(part).to_bytes(8, "little") + part)
        return digest.hexdigest()

    def _row(self, index: SupportsIndex) -> int:
        at = operator.index(index)
        if not -len(self) <= at < len(self):
            raise IndexError(f"pair {at} of {len(self)}")
        at %= len(self)
        return at if self._rows is None else int(self._rows[at])


def unique_ids(ids: Iterable[str]) -> list[str]:
    """The ids, the second and later ones of the same name followed by `#1`, `#2`, ... in order."""
    given = [str(i) for i in ids]
    taken = set(given)
    if len(taken) == len(given):
        return given
    seen: dict[str, int] = {}
    out = []
    for name in given:
        count = seen.get(name, 0)
        fresh = name
        while count and fresh in taken:
            fresh = f"{name}#{count}"
            count += 1
        seen[name] = max(count, 1)
        taken.add(fresh)
        out.append(fresh)
    return out


def _print_of(image: ImageSource | None) -> bytes:
    if image is None:
        return b""
    if isinstance(image, bytes):
        return hashlib.sha256(image).digest()
    if isinstance(image, Path):
        size = image.stat().st_size if image.is_file() else -1
        return f"{image.name}\0{size}".encode()
    return hashlib.sha256(f"{image.mode}{image.size}".encode() + image.tobytes()).digest()
