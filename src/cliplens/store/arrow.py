"""One shard file: an Arrow stream that SAELens and `datasets` read. Specified in docs/cache-format.md."""

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int32, Int64, Shaped

from cliplens.errors import DamagedError

_EXTENSION = b"datasets.features.features.Array2DExtensionType"
_VALUES_PER_BATCH = 2**28
"""Arrow's list offsets are 32 bits wide; a record batch stays well below."""


@dataclass(frozen=True)
class ShardSchema:
    """Columns of a site's shard files: `column` [context_size, d_in] per pair and, with positions, token ids."""

    column: str
    context_size: int
    d_in: int
    dtype: str
    token_ids: bool

    @property
    def features(self) -> dict[str, Any]:
        """The columns as `datasets` describes them."""
        shape = [self.context_size, self.d_in]
        out: dict[str, Any] = {self.column: {"shape": shape, "dtype": self.dtype, "_type": "Array2D"}}
        if self.token_ids:
            ids = {"dtype": "int32", "_type": "Value"}
            out["token_ids"] = {"feature": ids, "length": self.context_size, "_type": "List"}
        return out

    @property
    def arrow(self) -> pa.Schema:
        """The columns as an Arrow schema."""
        about = {
            b"ARROW:extension:name": _EXTENSION,
            b"ARROW:extension:metadata": json.dumps([[self.context_size, self.d_in], self.dtype]).encode(),
        }
        value = pa.float16() if self.dtype == "float16" else pa.float32()
        fields = [pa.field(self.column, pa.list_(pa.list_(value)), metadata=about)]
        if self.token_ids:
            fields.append(pa.field("token_ids", pa.list_(pa.int32(), self.context_size)))
        return pa.schema(fields, metadata={"huggingface": json.dumps({"info": {"features": self.features}})})

    @property
    def bytes_per_pair(self) -> int:
        """Bytes of a pair on disk: values, offsets, token ids."""
        values = self.context_size * self.d_in * (2 if self.dtype == "float16" else 4)
        return values + 4 * self.context_size + 4 + (4 * self.context_size if self.token_ids else 0)

    def record_batches(
        self, acts: Float[np.ndarray, "pair pos d_in"], token_ids: Int32[np.ndarray, "pair pos"] | None
    ) -> Iterator[pa.RecordBatch]:
        """Return the pairs as record batches, without copying a value."""
        step = max(_VALUES_PER_BATCH // (self.context_size * self.d_in), 1)
        for start in range(0, len(acts), step):
            part = np.ascontiguousarray(acts[start : start + step])
            columns = [self._nested(part)]
            if self.token_ids and token_ids is not None:
                flat = np.ascontiguousarray(token_ids[start : start + step]).reshape(-1)
                columns.append(pa.FixedSizeListArray.from_arrays(pa.array(flat), self.context_size))
            yield pa.RecordBatch.from_arrays(columns, schema=self.arrow)

    def _nested(self, acts: Float[np.ndarray, "pair pos d_in"]) -> pa.Array:
        pairs = len(acts)
        values = pa.array(acts.reshape(-1))
        inner = np.arange(0, pairs * self.context_size + 1, dtype=np.int32) * np.int32(self.d_in)
        outer = np.arange(0, pairs + 1, dtype=np.int32) * np.int32(self.context_size)
        rows = pa.ListArray.from_arrays(pa.array(inner), values)
        return pa.ListArray.from_arrays(pa.array(outer), rows)


@dataclass(frozen=True)
class Written:
    """Size and hash of a written file."""

    sha256: str
    bytes: int


class HashedStream:
    """An Arrow stream that is written to `path` batch by batch and hashed while writing."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._file: IO[bytes] = path.open("wb")
        self._digest = hashlib.sha256()
        self._bytes = 0
        self._sink = pa.PythonFile(self, mode="w")
        self._writer = pa.ipc.new_stream(self._sink, schema)

    @property
    def closed(self) -> bool:
        """Whether the file is closed; Arrow asks for it."""
        return self._file.closed

    def write(self, data: Any) -> int:
        """Write bytes; called by Arrow."""
        view = memoryview(data)
        self._digest.update(view)
        self._bytes += view.nbytes
        return self._file.write(view)

    def flush(self) -> None:
        """Flush the file; called by Arrow."""
        self._file.flush()

    def add(self, batch: pa.RecordBatch) -> None:
        """Append a record batch."""
        self._writer.write_batch(batch)

    def finish(self) -> Written:
        """Close the stream, on disk to the last byte."""
        self._writer.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return Written(self._digest.hexdigest(), self._bytes)

    def abandon(self) -> None:
        """Close the unfinished file."""
        self._file.close()

    def __enter__(self) -> "HashedStream":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abandon()


class ShardFile:
    """The activations in a shard file, memory-mapped."""

    def __init__(self, path: Path, column: str) -> None:
        try:
            self._map = pa.memory_map(str(path))
            self._batches = [_plain(b.column(b.schema.names.index(column))) for b in pa.ipc.open_stream(self._map)]
        except (pa.ArrowException, ValueError) as error:
            raise _damaged(path, error) from error

    @cached_property
    def _starts(self) -> Int64[np.ndarray, " batch"]:
        return np.cumsum([0, *(len(b) for b in self._batches)]).astype(np.int64)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def read(self, start: int, stop: int) -> Shaped[np.ndarray, "pair pos d_in"]:
        """Return pairs [start, stop) of the shard, as a view of the file where they lie in one record batch."""
        first = int(np.searchsorted(self._starts, start, side="right")) - 1
        parts = []
        for number in range(first, len(self._batches)):
            low = int(self._starts[number])
            if low >= stop:
                break
            parts.append(self._batches[number][max(start - low, 0) : stop - low])
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _plain(column: pa.Array) -> Shaped[np.ndarray, "pair pos d_in"]:
    stored = column.storage if isinstance(column, pa.ExtensionArray) else column
    context = len(stored.values) // max(len(stored), 1)
    values = stored.values.values.to_numpy(zero_copy_only=True)
    return values.reshape(len(stored), context, -1)


def read_table(path: Path) -> pa.Table:
    """Read a small Arrow stream."""
    try:
        with pa.memory_map(str(path)) as mapped:
            return pa.ipc.open_stream(mapped).read_all()
    except (pa.ArrowException, ValueError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> DamagedError:
    return DamagedError(
        expected=f"an Arrow stream in {path}",
        found=f"{type(error).__name__}: {error}".splitlines()[0],
        fix="run the same harvest again (cliplens run --resume): it rewrites this shard only",
    )
