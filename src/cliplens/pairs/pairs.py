"""Images and captions in step, kept column by column: paths and handles, never all the pixels."""

import hashlib
import operator
import warnings
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import SupportsIndex, overload

import numpy as np
from jaxtyping import Int, Int64, Shaped, UInt8

from cliplens.errors import NearestNames, PairsError
from cliplens.keys import first_id
from cliplens.pairs.account import RowAccount
from cliplens.pairs.ids import printable, unique_ids
from cliplens.pairs.lazy import ImageColumn, LazyImages
from cliplens.pairs.same import representatives
from cliplens.pairs.strings import Files, Strings, print_of_image
from cliplens.pictures import AS_SEEN, BadPicture, PictureOptions
from cliplens.progress import Bar
from cliplens.records import ImageSource, Pair


class Pairs(NearestNames, Sequence[Pair]):
    """Images and captions in step. Indexing gives a `Pair`; a slice, or `take`, gives `Pairs` with the same ids.

    Ids are unique: where the given ones are not, the second and later ones get `#1`, `#2`, ... in order. Ids, captions
    and file names are kept as Arrow columns: a pair takes its text and a few dozen bytes.

    Args:
        ids: one per pair.
        images: one source per pair; None when there are no images.
        captions: one per pair; None when there are no captions.
        name: name of the source, for messages.
        bad_captions: reason why a caption cannot be used, by index.
        rows: row of the source each pair comes from; None numbers them as the pairs.
        n_rows: rows in the source, those without pairs included; None when every row gave a pair.
        unit: what a row is called: "row", "image", "sample".
        image_keys: numbers that are equal for pairs of one picture; None compares the images.
        notes: remarks about how the source was read, to be shown to the user.
        opening: how images are opened.

    >>> pairs = Pairs(["a", "b", "b"], None, ["a cat", "a dog", "a cat"])
    >>> pairs.ids, pairs.caption_ids
    (('a', 'b', 'b#1'), ('a', 'b', 'a'))
    """

    def __init__(
        self,
        ids: Iterable[str] | Strings,
        images: Sequence[ImageSource | None] | None,
        captions: Sequence[str | None] | None,
        *,
        name: str = "pairs",
        bad_captions: Mapping[int, str] | None = None,
        rows: Int64[np.ndarray, " pair"] | None = None,
        n_rows: int | None = None,
        unit: str = "row",
        image_keys: Int64[np.ndarray, " pair"] | None = None,
        notes: Sequence[str] = (),
        opening: PictureOptions = AS_SEEN,
    ) -> None:
        self.name, self.notes, self.opening, self.unit = name, tuple(notes), opening, unit
        given = printable(ids if isinstance(ids, Strings) else Strings.of(map(str, ids)))
        self._ids = unique_ids(given)
        self._images = _compact(images)
        self._captions = None if captions is None else Strings.of(captions)
        self._bad_captions = dict(bad_captions or {})
        for what, column in (("image", images), ("caption", captions)):
            if column is not None and len(column) != len(self._ids):
                raise PairsError(
                    expected=f"one {what} per id ({len(self._ids)})",
                    found=f"{len(column)}",
                    fix=f"pass one {what} per pair, or None for pairs without one",
                )
        self._source_rows = rows
        self._n_rows = (
            n_rows if n_rows is not None else len(self._ids) if rows is None else int(rows.max(initial=-1)) + 1
        )
        self._image_keys = image_keys
        self._rows: Int64[np.ndarray, " pair"] | None = None
        self._shared: dict[str, Int64[np.ndarray, " pair"]] = {}

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
        return self._pair(row, self._source(row), self._same_image(row), self._same_caption(row))

    def __iter__(self) -> Iterator[Pair]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        has = [what for what, column in (("images", self._images), ("captions", self._captions)) if column is not None]
        return f"Pairs({self.name!r}, {len(self):,} pairs of {' and '.join(has) or 'nothing'})"

    @property
    def ids(self) -> tuple[str, ...]:
        """The id of each pair, in order."""
        return tuple(self._each_id())

    @property
    def captions(self) -> list[str | None]:
        """The caption of each pair, in order; None where there is none, or one that is not text."""
        if self._captions is None:
            return [None] * len(self)
        return list(self._captions) if self._rows is None else [self._captions[r] for r in self._rows.tolist()]

    @property
    def image_ids(self) -> tuple[str, ...]:
        """An id per pair that is equal for pairs of the same picture: the smallest of their ids.

        Pictures are the same where the source says so (a row with several captions, an image id, one file name) or
        where their bytes are equal in memory.
        """
        same = self._group("image")
        return tuple(str(self._ids[row]) for row in (same if self._rows is None else same[self._rows]).tolist())

    @property
    def caption_ids(self) -> tuple[str, ...]:
        """An id per pair that is equal for pairs of the same caption, white space aside: the smallest of their ids."""
        same = self._group("caption")
        return tuple(str(self._ids[row]) for row in (same if self._rows is None else same[self._rows]).tolist())

    def id_at(self, index: SupportsIndex) -> str:
        """Return the id of one pair, without opening its image."""
        return str(self._ids[self._row(index)])

    def caption_at(self, index: SupportsIndex) -> str | None:
        """Return the caption of one pair, without opening its image."""
        return None if self._captions is None else self._captions[self._row(index)]

    def without_image(self, index: SupportsIndex) -> Pair:
        """Return one pair with its id and caption only."""
        return self._pair(self._row(index), None)

    def unidentified(self, index: SupportsIndex) -> Pair:
        """Return one pair without looking up which others share its picture or caption."""
        row = self._row(index)
        return self._pair(row, self._source(row))

    def indices(self, ids: Iterable[str]) -> dict[str, int]:
        """Return the index of each of these ids; ids that are not here are left out."""
        wanted = set(ids)
        return {pair_id: index for index, pair_id in enumerate(self._each_id()) if pair_id in wanted}

    def places(self, ids: Iterable[str]) -> dict[str, int]:
        """Return `indices(ids)`; the old name, with a DeprecationWarning."""
        warnings.warn("Pairs.places is now Pairs.indices", DeprecationWarning, stacklevel=2)
        return self.indices(ids)

    @property
    def has_images(self) -> bool:
        """Whether the pairs have a column of images."""
        return self._images is not None

    @property
    def has_captions(self) -> bool:
        """Whether the pairs have a column of captions."""
        return self._captions is not None

    @property
    def has_pixels(self) -> bool:
        """Whether `pixels` returns many images at once."""
        return isinstance(self._images, ImageColumn)

    def take(self, rows: Sequence[int] | Shaped[np.ndarray, " row"]) -> "Pairs":
        """Return the pairs at the given indices, in that order, their ids unchanged; a boolean mask works too.

        Raises:
            IndexError: an index outside the pairs, or a mask of another length.
        """
        picked = np.asarray(rows)
        if picked.dtype == bool and picked.shape != (len(self),):
            raise IndexError(f"a mask of shape {picked.shape} for {len(self)} pairs")
        picked = np.flatnonzero(picked) if picked.dtype == bool else picked.astype(np.int64)
        outside = picked[(picked < -len(self)) | (picked >= len(self))]
        if len(outside):
            raise IndexError(f"pair {outside[0]} of {len(self)}")
        picked = picked % max(len(self), 1)
        return self._with(_rows=picked if self._rows is None else self._rows[picked])

    def opened_as(self, opening: PictureOptions) -> "Pairs":
        """Return the same pairs with images that are opened in another way."""
        return self._with(opening=opening)

    def noted(self, *notes: str) -> "Pairs":
        """Return the same pairs with further notes."""
        return self._with(notes=(*self.notes, *notes))

    def account(self, bad: Container[str] | None = None) -> RowAccount:
        """Return the counts of used, quarantined and left-out rows of the source.

        Args:
            bad: ids of the pairs that were found unusable. None, before any pair was opened, counts those that are
                known from reading the source.

        >>> print(Pairs(["a", "b", "c"], None, ["x", "y", "z"])[:2].account(bad={"b"}))
        3 rows: 1 used, 1 quarantined, 1 left out on request
        """
        here = np.arange(len(self._ids)) if self._rows is None else self._rows
        rows = here if self._source_rows is None else self._source_rows[here]
        good = np.fromiter((self._is_good(int(row), bad) for row in here), bool, len(here))
        reached, used = len(np.unique(rows)), len(np.unique(rows[good]))
        return RowAccount(self._n_rows, used, reached - used, self._n_rows - reached, self.unit)

    def pixels(
        self, rows: Sequence[int] | Int[np.ndarray, " image"]
    ) -> UInt8[np.ndarray, "image height width 3"] | None:
        """Return the images at the given indices at once, as RGB; None when the source only opens them one by one."""
        if not isinstance(self._images, ImageColumn):
            return None
        picked = np.asarray(rows, dtype=np.int64)
        return self._images.pixels(picked if self._rows is None else self._rows[picked])

    @cached_property
    def sha256(self) -> str:
        """Hash over ids, captions and images: names and sizes of files, pixels of images in memory.

        Files are not read: a change that keeps the size of a file is not detected.
        """
        digest = hashlib.sha256()
        images = self._images
        if isinstance(images, LazyImages):
            digest.update(images.sha256.encode())
            images = None
        prints = map(_printer(images), range(len(self._ids)) if self._rows is None else map(int, self._rows))
        columns = zip(self._raw(self._ids), self._raw(self._captions), prints, strict=True)
        for parts in Bar(columns, total=len(self), desc="hashing pairs", unit="pair"):
            digest.update(b"".join(len(part).to_bytes(8, "little") + part for part in parts))
        return digest.hexdigest()

    def _pair(self, row: int, source: ImageSource | None, image_id: str = "", caption_id: str = "") -> Pair:
        caption = None if self._captions is None else self._captions[row]
        problem = self._bad_captions.get(row)
        return Pair(str(self._ids[row]), source, caption, image_id, caption_id, problem, self.opening)

    def _source(self, row: int) -> ImageSource | None:
        return None if self._images is None else self._images[row]

    def _same_image(self, row: int) -> str:
        return str(self._ids[int(self._group("image")[row])])

    def _same_caption(self, row: int) -> str:
        return str(self._ids[int(self._group("caption")[row])])

    def _group(self, what: str) -> Int64[np.ndarray, " pair"]:
        """Return, for each pair of the source, the row of the first pair with the same picture or caption."""
        if what not in self._shared:
            keys = self._keys_of_images() if what == "image" else self._keys_of_captions()
            self._shared[what] = representatives(keys, lambda row: str(self._ids[row]))
        return self._shared[what]

    def _keys_of_images(self) -> Int64[np.ndarray, " pair"]:
        if self._image_keys is not None:
            return self._image_keys
        if isinstance(self._images, Files | LazyImages):
            return self._images.keys()
        if self._images is None:
            return np.fromiter((hash(first_id(str(i))) for i in self._ids), np.int64, len(self._ids))
        prints = ((n, hash(print_of_image(image))) for n, image in enumerate(self._images))
        unlike = {n for n, image in enumerate(self._images) if image is None or isinstance(image, BadPicture)}
        return np.fromiter((hash((n,)) if n in unlike else key for n, key in prints), np.int64, len(self._ids))

    def _keys_of_captions(self) -> Int64[np.ndarray, " pair"]:
        captions: Iterable[str | None] = [None] * len(self._ids) if self._captions is None else self._captions
        keys = (hash((n,)) if c is None else hash(" ".join(c.split())) for n, c in enumerate(captions))
        return np.fromiter(keys, np.int64, len(self._ids))

    def _is_good(self, row: int, bad: Container[str] | None) -> bool:
        if bad is not None:
            return str(self._ids[row]) not in bad
        unseen = isinstance(self._images, Files) and isinstance(self._images.others.get(row), BadPicture)
        return not unseen and row not in self._bad_captions

    def _with(self, **changed: object) -> "Pairs":
        made = object.__new__(Pairs)
        made.__dict__.update({k: v for k, v in self.__dict__.items() if k != "sha256"})
        made.__dict__.update(changed)
        return made

    def _raw(self, column: Strings | None) -> Iterator[bytes]:
        """Iterate over a column as UTF-8 in the order of the pairs; empty where there is no string."""
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


def _compact(images: Sequence[ImageSource | None] | None) -> Sequence[ImageSource | None] | None:
    """Return a list of paths as a column of names; return other images unchanged."""
    if not isinstance(images, list | tuple) or not all(i is None or isinstance(i, Path) for i in images):
        return images
    return Files(Path(), Strings.of(None if i is None else str(i) for i in images))


def _printer(images: Sequence[ImageSource | None] | None) -> Callable[[int], bytes]:
    if images is None:
        return lambda _: b""
    return images.print_at if isinstance(images, Files) else lambda row: print_of_image(images[row])
