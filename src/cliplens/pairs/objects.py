"""Pairs from Python objects: lists of (image, caption), lists of dictionaries, pandas frames."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from cliplens.pairs.columns import BadRow, Columns, Row, pairs_of_rows, picture_column, which_columns
from cliplens.pairs.pairs import Pairs
from cliplens.records import Pair
from cliplens.sites import Modalities

_TUPLE = 2


def is_frame(source: Any) -> bool:
    """Return whether an object is a pandas frame, without importing pandas."""
    return type(source).__module__.split(".")[0] == "pandas" and hasattr(source, "itertuples")


def pairs_of_frame(frame: Any, columns: Columns, root: Path, modalities: Modalities) -> Pairs:
    """Return the pairs of a pandas frame; images are file names, paths, bytes or pictures.

    Raises:
        PairsError: a column that is needed is missing.
    """
    present = [str(name) for name in frame.columns]
    chosen = which_columns(columns, present, modalities, "the frame")
    rows = (dict(zip(present, values, strict=True)) for values in frame.itertuples(index=False, name=None))
    return pairs_of_rows(rows, chosen, root, "frame", picture_column=picture_column(present, chosen))


def pairs_of_list(source: Iterable[Any], columns: Columns, root: Path, modalities: Modalities) -> Pairs:
    """Return the pairs of a list of (image, caption), of dictionaries, or of `Pair`.

    An image is a file name, a path, bytes, an array of pixels or a picture. With one modality a list of images, or of
    captions, is enough.

    Raises:
        PairsError: a dictionary lacks a column that is needed.
    """
    rows = list(source)
    if any(isinstance(row, Mapping) for row in rows):
        present = list(dict.fromkeys(str(name) for row in rows if isinstance(row, Mapping) for name in row))
        chosen = which_columns(columns, present, modalities, "the list")
        picture = picture_column(present, chosen)
        return pairs_of_rows(_mappings(rows), chosen, root, "list", picture_column=picture)
    chosen = ("image" if modalities != "text" else None, "caption" if modalities != "image" else None, "id")
    return pairs_of_rows(_rows(rows, modalities), chosen, root, "list")


def _mappings(rows: list[Any]) -> Iterator[Row]:
    for number, row in enumerate(rows):
        yield row if isinstance(row, Mapping) else BadRow(f"entry {number} is a {type(row).__name__}, not a dictionary")


def _rows(rows: list[Any], modalities: Modalities) -> Iterator[Row]:
    single = {"image": "image", "text": "caption"}.get(modalities)
    for number, row in enumerate(rows):
        if isinstance(row, Pair):
            yield {"id": row.id, "image": row.source, "caption": row.caption}
        elif isinstance(row, tuple | list) and len(row) == _TUPLE:
            yield {"image": row[0], "caption": row[1]}
        elif single is not None and not isinstance(row, tuple | list):
            yield {single: row}
        else:
            yield BadRow(f"entry {number} is a {type(row).__name__}, not an (image, caption) pair")
