"""Columns of strings for millions of pairs: Arrow arrays instead of Python objects."""

import hashlib
import operator
import os
import posixpath
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import SupportsIndex, overload

import numpy as np
import pyarrow as pa
from jaxtyping import Int64

from cliplens.pictures import BadPicture, PictureSource

_AT_ONCE = 2**13


class Strings(Sequence[str | None]):
    """A read-only column of strings or None, in memory or in a mapped file.

    Every Python string is returned unchanged, lone surrogates of invalid file names included.
    """

    def __init__(self, stored: pa.ChunkedArray) -> None:
        as_bytes = {pa.string(): pa.binary(), pa.large_string(): pa.large_binary()}
        self._stored = stored.cast(as_bytes.get(stored.type, stored.type))

    @classmethod
    def of(cls, values: Iterable[str | None]) -> "Strings":
        """Return a column of these values; a column is returned as it is."""
        if isinstance(values, Strings):
            return values
        column = Growing()
        for value in values:
            column.append(value)
        return column.done()

    def __len__(self) -> int:
        return len(self._stored)

    @overload
    def __getitem__(self, index: SupportsIndex) -> str | None: ...
    @overload
    def __getitem__(self, index: slice) -> "Strings": ...
    def __getitem__(self, index: SupportsIndex | slice) -> "Strings | str | None":
        if isinstance(index, slice):
            return Strings.of(self[i] for i in range(*index.indices(len(self))))
        return _decoded(self.raw_at(index))

    def __iter__(self) -> Iterator[str | None]:
        return map(_decoded, self.raw())

    def raw_at(self, index: SupportsIndex) -> bytes | None:
        """Return one string as UTF-8."""
        return self._stored[int(index)].as_py()

    def check_text(self) -> None:
        """Check that every string is valid Unicode.

        Raises:
            pyarrow.ArrowInvalid: one holds a lone surrogate.
        """
        for chunk in self._stored.iterchunks():
            chunk.cast(pa.string() if pa.types.is_binary(chunk.type) else pa.large_string())

    def raw(self) -> Iterator[bytes | None]:
        """Iterate over the strings as UTF-8."""
        for chunk in self._stored.iterchunks():
            for start in range(0, len(chunk), _AT_ONCE):
                yield from chunk.slice(start, _AT_ONCE).to_pylist()


class Growing:
    """Collect strings into a column."""

    def __init__(self) -> None:
        self._full: list[pa.Array] = []
        self._last: list[bytes | None] = []

    def append(self, value: str | None) -> None:
        """Append one string."""
        self._last.append(None if value is None else value.encode("utf-8", "surrogatepass"))
        if len(self._last) == _AT_ONCE:
            self._pack()

    def done(self) -> Strings:
        """Return the column of all strings appended."""
        self._pack()
        return Strings(pa.chunked_array(self._full, type=pa.binary()))

    def __len__(self) -> int:
        return sum(map(len, self._full)) + len(self._last)

    def _pack(self) -> None:
        packed = pa.array(self._last, type=pa.binary())
        self._full += packed.iterchunks() if isinstance(packed, pa.ChunkedArray) else [packed]
        self._last = []


class Files(Sequence[PictureSource | None]):
    """Image files below a folder, by name; None where a pair has no image.

    `others` holds, by index, images that are not files: bytes, pictures in memory, or a `BadPicture`.
    """

    def __init__(self, root: Path, names: Strings, others: Mapping[int, PictureSource] | None = None) -> None:
        self.root, self.names, self.others = root, names, dict(others or {})

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: SupportsIndex) -> PictureSource | None: ...
    @overload
    def __getitem__(self, index: slice) -> "Files": ...
    def __getitem__(self, index: SupportsIndex | slice) -> "Files | PictureSource | None":
        if isinstance(index, slice):
            rows = range(*index.indices(len(self)))
            others = {n: self.others[row] for n, row in enumerate(rows) if row in self.others}
            return Files(self.root, self.names[index], others)
        row = operator.index(index)
        if not -len(self) <= row < len(self):
            raise IndexError(f"image {row} of {len(self)}")
        row %= len(self)
        if row in self.others:
            return self.others[row]
        name = self.names[row]
        return None if name is None else self.root / name

    def print_at(self, index: int) -> bytes:
        """Return name and size of a file, for `Pairs.sha256`; the size is -1 where there is no such file."""
        if index in self.others:
            return print_of_image(self.others[index])
        name = self.names[index]
        return b"" if name is None else print_of(os.path.join(self.root, name))  # noqa: PTH118  ten times a Path's speed

    def keys(self) -> Int64[np.ndarray, " image"]:
        """Return a number per image that is equal for the same file; valid in this process only."""
        return np.fromiter(map(self._key, range(len(self))), np.int64, len(self))

    def _key(self, index: int) -> int:
        other = self.others.get(index)
        if other is not None:
            return hash(print_of_image(other)) if not isinstance(other, BadPicture) else hash((index,))
        name = self.names[index]
        return hash((index,)) if name is None else hash(posixpath.normpath(name))


def print_of_image(image: PictureSource | None) -> bytes:
    """Return a digest of an image: of its bytes or pixels, or of the name and size of its file."""
    if image is None or isinstance(image, BadPicture):
        return b""
    if isinstance(image, bytes):
        return hashlib.sha256(image).digest()
    if isinstance(image, Path):
        return print_of(str(image))
    return hashlib.sha256(f"{image.mode}{image.size}".encode() + image.tobytes()).digest()


def print_of(file: str) -> bytes:
    """Return name and size of a file; the size is -1 where there is no such file."""
    try:
        found = os.stat(file)  # noqa: PTH116
        size = found.st_size if stat.S_ISREG(found.st_mode) else -1
    except (OSError, ValueError):
        size = -1
    return f"{file.rpartition(os.sep)[2]}\0{size}".encode("utf-8", "surrogatepass")


def _decoded(stored: bytes | None) -> str | None:
    return None if stored is None else stored.decode("utf-8", "surrogatepass")
