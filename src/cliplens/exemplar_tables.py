"""Check the tables of exemplars before they are read, so that a foreign table is refused in words."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from cliplens.errors import DamagedError

LARGEST = 2**29
"""Most samples that a table may announce, as latents x ranks: far more than any run has, and still in memory."""


def shapes_of(metadata: Mapping[bytes, bytes]) -> dict[str, tuple[int, int]]:
    """Return the number of latents and of ranks that a table announces, by the name of the entry.

    >>> shapes_of({b"image_shape": b"32x20"})
    {'image_shape': (32, 20)}

    Raises:
        DamagedError: an entry is not two counts, or announces more than `LARGEST` samples.
    """
    found = {}
    for name, value in metadata.items():
        if not name.endswith(b"_shape"):
            continue
        counts = value.split(b"x")
        known = len(counts) == 2 and all(n.isdigit() and len(n) < 19 for n in counts)
        if not known or int(counts[0]) * int(counts[1]) > LARGEST:
            raise DamagedError(
                expected=f"a number of latents and one of ranks, such as 256x20, with a product of at most {LARGEST:,}",
                found=f"{value[:40].decode(errors='replace')!r} as {name.decode(errors='replace')}",
                fix="score the run again",
            )
        found[name.decode(errors="replace")] = (int(counts[0]), int(counts[1]))
    return found


def check_columns(table: pa.Table, schema: pa.Schema, *, optional: Sequence[str], file: Path) -> None:
    """Check that the columns of a table are of the kinds of a schema, and have no nulls but in the optional ones.

    Wider and narrower numbers, and other encodings of texts, are of the same kind.

    Raises:
        DamagedError: a column is of another kind, or has nulls.
    """
    for field in schema:
        column = table.column(field.name)
        if column.null_count and field.name not in optional:
            raise DamagedError(
                expected=f"a value in each row of the column {field.name!r} of {file}",
                found=f"none in {column.null_count:,} of {len(column):,} rows",
                fix="score the run again",
            )
        kind, known = _kind(column.type), (_kind(field.type), *(["null"] if field.name in optional else []))
        if kind not in known and not (kind == "whole number" and "number" in known):
            raise DamagedError(
                expected=f"a column {field.name!r} of the type {field.type} in {file}",
                found=f"one of the type {column.type}",
                fix="score the run again",
            )


def check_range(name: str, column: pa.ChunkedArray, count: int) -> None:
    """Check that all values of a column are at least 0 and below a count.

    Raises:
        DamagedError: one is not.
    """
    values = column.to_numpy()
    if len(values) and not (values.min() >= 0 and values.max() < count):
        raise DamagedError(
            expected=f"values from 0 to {count - 1} in the column {name!r}" if count else f"no value of {name!r}",
            found=f"{values.min()} to {values.max()}",
            fix="score the run again",
        )


def thumbnail_path(folder: Path, name: str | None) -> Path | None:
    """Return the file of a thumbnail that a table names, always inside `images/` of the folder; None for None.

    Raises:
        DamagedError: there is no such file.
    """
    if name is None:
        return None
    path = folder / "images" / Path(name).name
    try:
        there = path.is_file()
    except OSError:  # too long for a file name
        there = False
    if not there:
        raise DamagedError(expected=f"the thumbnail {path}", found="no such file", fix="score the run again")
    return path


def _kind(of: pa.DataType) -> str:
    if pa.types.is_dictionary(of):
        return _kind(of.value_type)
    if pa.types.is_list(of) or pa.types.is_large_list(of):
        return f"list of {_kind(of.value_type)}"
    if pa.types.is_string(of) or pa.types.is_large_string(of) or pa.types.is_string_view(of):
        return "text"
    if pa.types.is_integer(of):
        return "whole number"
    return "number" if pa.types.is_floating(of) else str(of)
