"""Columns of strings for millions of pairs: Arrow arrays, their bytes and 4 more each, instead of Python objects."""

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import SupportsIndex, overload

import pyarrow as pa

_AT_ONCE = 2**13


class Strings(Sequence[str | None]):
    """Strings, or None where there is none, one after another in memory or in a mapped file; read-only.

    Any Python string comes back as it was given: lone surrogates of odd file names and of JSON are kept.
    """

    def __init__(self, stored: pa.ChunkedArray) -> None:
        as_bytes = {pa.string(): pa.binary(), pa.large_string(): pa.large_binary()}
        self._stored = stored.cast(as_bytes.get(stored.type, stored.type))

    @classmethod
    def of(cls, values: Iterable[str | None]) -> "Strings":
        """The values, taken one by one; what is a column already is left as it is."""
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
        """One string as UTF-8."""
        return self._stored[int(index)].as_py()

    def raw(self) -> Iterator[bytes | None]:
        """The strings as UTF-8, in order."""
        for chunk in self._stored.iterchunks():
            for start in range(0, len(chunk), _AT_ONCE):
                yield from chunk.slice(start, _AT_ONCE).to_pylist()


class Growing:
    """A column of strings that is still being filled."""

    def __init__(self) -> None:
        self._full: list[pa.Array] = []
        self._last: list[bytes | None] = []

    def append(self, value: str | None) -> None:
        """One more string."""
        self._last.append(None if value is None else value.encode("utf-8", "surrogatepass"))
        if len(self._last) == _AT_ONCE:
            self._pack()

    def done(self) -> Strings:
        """All that was appended."""
        self._pack()
        return Strings(pa.chunked_array(self._full, type=pa.binary()))

    def _pack(self) -> None:
        packed = pa.array(self._last, type=pa.binary())
        self._full += packed.iterchunks() if isinstance(packed, pa.ChunkedArray) else [packed]
        self._last = []


class Files(Sequence[Path | None]):
    """Image files below a folder, by their names; None where a pair has none."""

    def __init__(self, root: Path, names: Strings) -> None:
        self.root, self.names = root, names

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: SupportsIndex) -> Path | None: ...
    @overload
    def __getitem__(self, index: slice) -> "Files": ...
    def __getitem__(self, index: SupportsIndex | slice) -> "Files | Path | None":
        if isinstance(index, slice):
            return Files(self.root, self.names[index])
        name = self.names[index]
        return None if name is None else self.root / name

    def print_at(self, index: int) -> bytes:
        """Name and size of a file, for `Pairs.sha256`; -1 where there is no such file."""
        name = self.names[index]
        return b"" if name is None else print_of(os.path.join(self.root, name))  # noqa: PTH118  ten times a Path's speed


def print_of(file: str) -> bytes:
    """Name and size of a file; -1 where there is no such file."""
    try:
        found = os.stat(file)  # noqa: PTH116
        size = found.st_size if stat.S_ISREG(found.st_mode) else -1
    except OSError:
        size = -1
    return f"{file.rpartition(os.sep)[2]}\0{size}".encode("utf-8", "surrogatepass")


def _decoded(stored: bytes | None) -> str | None:
    return None if stored is None else stored.decode("utf-8", "surrogatepass")
