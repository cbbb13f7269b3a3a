"""Pairs of images and captions in step, read column by column: paths and handles, never all the pixels."""

import hashlib
import operator
import re
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import SupportsIndex, overload

import numpy as np
from jaxtyping import Bool, Int64, UInt8
from tqdm.auto import tqdm

from cliplens.errors import PairsError
from cliplens.pairs.strings import Files, Strings, print_of
from cliplens.records import ImageSource, Pair

_FURTHER = re.compile(r"#\d+$")


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

    Ids are unique: where the given ones are not, the second and later ones get `#1`, `#2`, ... in order. Ids, captions
    and names of files are kept as Arrow columns: a pair takes its text and a few dozen bytes.
    """

    def __init__(
        self,
        ids: Iterable[str] | Strings,
        images: Sequence[ImageSource | None] | None,
        captions: Sequence[str | None] | None,
        *,
        name: str = "pairs",
    ) -> None:
        self.name = name
        self._ids = unique_ids(ids if isinstance(ids, Strings) else Strings.of(map(str, ids)))
        self._images = _compact(images)
        self._captions = None if captions is None else Strings.of(captions)
        for what, column in (("image", images), ("caption", captions)):
            if column is not None and len(column) != len(self._ids):
                raise PairsError(
                    expected=f"one {what} per id ({len(self._ids)})",
                    found=f"{len(column)}",
                    fix=f"give every pair its {what}, or None where it has none",
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
        return Pair(str(self._ids[row]), image, caption)

    def __iter__(self) -> Iterator[Pair]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return f"Pairs({self.name!r}, {len(self)})"

    @property
    def ids(self) -> tuple[str, ...]:
        """The id of each pair, in order."""
        return tuple(self._each_id())

    @property
    def captions(self) -> list[str | None]:
        """The caption of each pair, in order."""
        if self._captions is None:
            return [None] * len(self)
        return list(self._captions) if self._rows is None else [self._captions[r] for r in self._rows.tolist()]

    def id_at(self, index: SupportsIndex) -> str:
        """The id of one pair, its image left alone."""
        return str(self._ids[self._row(index)])

    def caption_at(self, index: SupportsIndex) -> str | None:
        """The caption of one pair, its image left alone."""
        return None if self._captions is None else self._captions[self._row(index)]

    def without_image(self, index: SupportsIndex) -> Pair:
        """Return one pair with its id and caption, without opening its image."""
        return Pair(self.id_at(index), None, self.caption_at(index))

    def indices(self, ids: Iterable[str]) -> dict[str, int]:
        """Return the index of each of these ids; ids that are not here are left out."""
        wanted = set(ids)
        return {pair_id: index for index, pair_id in enumerate(self._each_id()) if pair_id in wanted}

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
        images = self._images
        if isinstance(images, LazyImages):
            digest.update(images.sha256.encode())
            images = None
        prints = map(_printer(images), range(len(self._ids)) if self._rows is None else map(int, self._rows))
        columns = zip(self._raw(self._ids), self._raw(self._captions), prints, strict=True)
        for parts in tqdm(columns, total=len(self), desc="hashing pairs", unit="pair", delay=2):
            digest.update(b"".join(len(part).to_bytes(8, "little") + part for part in parts))
        return digest.hexdigest()

    def _raw(self, column: Strings | None) -> Iterator[bytes]:
        """A column's strings in the order of the pairs, as UTF-8; nothing where there is none."""
        if column is None:
            return (b"" for _ in range(len(self)))
        if self._rows is None:
            return (part or b"" for part in column.raw())
        return ((column.raw_at(row) or b"") for row in map(int, self._rows))

    def _each_id(self) -> Iterator[str]:
        return map(str, self._ids if self._rows is None else (self._ids[row] for row in map(int, self._rows)))

    def _row(self, index: SupportsIndex) -> int:
        at = operator.index(index)
        if not -len(self) <= at < len(self):
            raise IndexError(f"pair {at} of {len(self)}")
        at %= len(self)
        return at if self._rows is None else int(self._rows[at])


def unique_ids(ids: Strings) -> Strings:
    """The ids, the second and later ones of the same name followed by `#1`, `#2`, ... in order."""
    # Hashes first: eight bytes for each id show, in all but a freak case, whether there is anything to do.
    keys = np.fromiter(map(hash, ids.raw()), np.int64, len(ids))
    ordered = np.sort(keys)
    twice = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    return Strings.of(_renamed(ids, np.isin(keys, twice))) if len(twice) else ids


def _renamed(ids: Strings, perhaps: Bool[np.ndarray, " id"]) -> Iterator[str]:
    taken = {name for name in ids if name is not None and _FURTHER.search(name)}
    seen: dict[str, int] = {}
    for given, again in zip(ids, perhaps, strict=True):
        name = str(given)
        count = seen.get(name, 0) if again else 0
        fresh = f"{name}#{count}" if count else name
        while count and fresh in taken:
            count += 1
            fresh = f"{name}#{count}"
        if again:
            seen[name] = count + 1
        yield fresh


def _compact(images: Sequence[ImageSource | None] | None) -> Sequence[ImageSource | None] | None:
    """Paths as their names alone; anything else as it is."""
    if not isinstance(images, list | tuple) or not all(i is None or isinstance(i, Path) for i in images):
        return images
    return Files(Path(), Strings.of(None if i is None else str(i) for i in images))


def _printer(images: Sequence[ImageSource | None] | None) -> Callable[[int], bytes]:
    if images is None:
        return lambda _: b""
    return images.print_at if isinstance(images, Files) else lambda row: _print_of(images[row])


def _print_of(image: ImageSource | None) -> bytes:
    if image is None:
        return b""
    if isinstance(image, bytes):
        return hashlib.sha256(image).digest()
    if isinstance(image, Path):
        return print_of(str(image))
    return hashlib.sha256(f"{image.mode}{image.size}".encode() + image.tobytes()).digest()
