"""Hugging Face `datasets`: parquet and Arrow files, saved folders, names on the hub, datasets already at hand."""

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int64

from cliplens.errors import PairsError
from cliplens.pairs.columns import Columns, captions_of, which_columns
from cliplens.pairs.pairs import LazyImages, Pairs
from cliplens.pairs.strings import Strings
from cliplens.records import ImageSource
from cliplens.sites import Modalities

if TYPE_CHECKING:
    import datasets

PREFIX = "hf:"
_NAME = re.compile(r"hf:(?P<name>[^:@?]+)(:(?P<config>[^@?]+))?(@(?P<split>[^?]+))?(\?limit=(?P<limit>\d+))?")
_FILES = {".parquet": "parquet", ".arrow": "arrow"}


def is_hugging(path: str) -> bool:
    """Whether a path means something `datasets` reads."""
    return path.startswith(PREFIX) or Path(path).suffix in _FILES or (Path(path) / "state.json").is_file()


def read_hugging(path: str, root: Path, columns: Columns, modalities: Modalities) -> Pairs:
    """Pairs of `hf:NAME[:CONFIG][@SPLIT][?limit=N]` (with a limit only that many are fetched), of a parquet or Arrow
    file or a glob of them, or of a folder written by `save_to_disk`.

    Raises:
        PairsError: it cannot be loaded.
    """
    import datasets

    found = _NAME.fullmatch(path)
    try:
        if found is not None:
            limit = None if found["limit"] is None else int(found["limit"])
            dataset = datasets.load_dataset(
                found["name"], found["config"], split=found["split"] or "train", streaming=limit is not None
            )
        elif (Path(path) / "state.json").is_file():
            dataset, limit = datasets.load_from_disk(path), None
        else:
            kind = _FILES[Path(path).suffix]
            dataset, limit = datasets.load_dataset(kind, data_files=path, split="train"), None
    except Exception as error:
        # `datasets` raises whatever the file system, the hub or the format raised.
        raise PairsError(
            expected=f"a dataset that `datasets` loads at {path}",
            found=f"{type(error).__name__}: {error}",
            fix="check the name; hub names look like hf:owner/name@split",
        ) from error
    return from_dataset(dataset, columns=columns, modalities=modalities, image_root=root, limit=limit, name=path)


def from_dataset(
    dataset: "datasets.Dataset | datasets.IterableDataset",
    *,
    columns: Columns = (None, None, None),
    modalities: Modalities = "both",
    image_root: Path | None = None,
    limit: int | None = None,
    name: str = "dataset",
) -> Pairs:
    """Pairs of a dataset at hand. A streaming one is first spooled to disk by `datasets`, `limit` rows of it.

    Args:
        columns: the names of the image, caption and id columns; None looks for the usual names.
        modalities: "image" needs no captions, "text" no images.
        image_root: where images given as file names lie.
        limit: rows to take; None takes all.
        name: how the pairs are called.

    Raises:
        PairsError: a column that is needed is missing.
    """
    import datasets

    if isinstance(dataset, datasets.IterableDataset):
        dataset = _spooled(dataset if limit is None else dataset.take(limit))
    elif limit is not None:
        dataset = dataset.take(limit)
    image, caption, identity = which_columns(columns, dataset.column_names, modalities, name)
    if image is not None and isinstance(dataset.features[image], datasets.Image):
        dataset = dataset.cast_column(image, datasets.Image(decode=False))
    rows, captions = _said(dataset, caption)
    stem = Path(name).stem
    if identity is None:
        ids = Strings.of(f"{stem}-{row:08d}" for row in rows)
    else:
        known = _strings(_column_of(dataset, identity))
        ids = known if len(rows) == len(known) else Strings.of(known[row] for row in rows)
    images = None if image is None else DatasetImages(dataset.select_columns([image]), rows, image_root)
    return Pairs(ids, images, captions, name=name)


def _said(dataset: "datasets.Dataset", caption: str | None) -> tuple[Int64[np.ndarray, " pair"], Strings | None]:
    """Row and caption of each pair: one per row, or one for each of a row's captions, at least one."""
    every = np.arange(len(dataset), dtype=np.int64)
    if caption is None:
        return every, None
    column = _column_of(dataset, caption)
    if not pa.types.is_list(column.type) and not pa.types.is_large_list(column.type):
        return every, _strings(column)
    counts = pc.fill_null(pc.list_value_length(column), 0).to_numpy().astype(np.int64)
    if len(counts) and counts.min() > 0:
        return np.repeat(every, counts), _strings(pc.list_flatten(column))
    return np.repeat(every, np.maximum(counts, 1)), Strings.of(
        one for chunk in column.iterchunks() for value in chunk.to_pylist() for one in captions_of(value)
    )


def _column_of(dataset: "datasets.Dataset", name: str) -> pa.ChunkedArray:
    """A column as it lies on disk, mapped, wherever the dataset is not a selection of rows."""
    return dataset.select_columns([name]).with_format("arrow")[:][name]


def _strings(column: pa.ChunkedArray) -> Strings:
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return Strings(column)
    return Strings.of(None if v is None else str(v) for chunk in column.iterchunks() for v in chunk.to_pylist())


class DatasetImages(LazyImages):
    """Images of a dataset's column: bytes, or files below `root`."""

    def __init__(self, dataset: "datasets.Dataset", rows: Int64[np.ndarray, " image"], root: Path | None) -> None:
        self.dataset, self.rows, self.root = dataset, rows, root or Path()
        self.column = dataset.column_names[0]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> ImageSource | None:  # type: ignore[override]
        value = self.dataset[int(self.rows[index])][self.column]
        if isinstance(value, dict):
            value = value.get("bytes") or value.get("path")
        return self.root / value if isinstance(value, str) else value

    @property
    def sha256(self) -> str:
        files = sorted([Path(f["filename"]).name, Path(f["filename"]).stat().st_size] for f in self.dataset.cache_files)
        about = [files, len(self.dataset), self.column, None if files else self.dataset._fingerprint]
        return hashlib.sha256(json.dumps(about).encode()).hexdigest()


def _spooled(dataset: "datasets.IterableDataset") -> "datasets.Dataset":
    import datasets

    def rows() -> Iterator[dict[str, Any]]:
        yield from dataset

    return datasets.Dataset.from_generator(rows, features=dataset.features)
