"""Read Hugging Face `datasets`: parquet and Arrow files, saved folders, names on the hub, datasets in memory."""

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Int64

from cliplens.errors import PairsError
from cliplens.pairs.cells import BadCaption, Caption, captions_of, id_of, image_of
from cliplens.pairs.columns import Columns, picture_column, which_columns
from cliplens.pairs.lazy import LazyImages
from cliplens.pairs.pairs import Pairs
from cliplens.pairs.strings import Growing, Strings
from cliplens.records import ImageSource
from cliplens.sites import Modalities

if TYPE_CHECKING:
    import datasets

PREFIX = "hf:"
_NAME = re.compile(r"hf:(?P<name>[^:@?]+)(:(?P<config>[^@?]+))?(@(?P<split>[^?]+))?(\?limit=(?P<limit>\d+))?")
_SPLITS = "dataset_dict.json"
_FILES = {".parquet": "parquet", ".arrow": "arrow"}


def is_dataset(source: Any) -> bool:
    """Return whether an object is a dataset of the `datasets` package, without importing it."""
    return type(source).__module__.split(".")[0] == "datasets" and hasattr(source, "features")


def is_hugging(path: str) -> bool:
    """Return whether a path names something `datasets` reads."""
    saved = any((Path(path) / name).is_file() for name in ("state.json", _SPLITS))
    return path.startswith(PREFIX) or Path(path).suffix.lower() in _FILES or saved


def parquet_columns(path: Path) -> list[str]:
    """Return the names of the columns of a parquet file; of the rest, only the footer is read.

    Raises:
        PairsError: it is no parquet file.
    """
    try:
        names: list[str] = pq.read_schema(path).names
    except pa.ArrowInvalid as error:
        raise PairsError(expected=f"a parquet file at {path}", found=str(error), fix="check the file") from error
    return names


def read_hugging(path: str, root: Path, columns: Columns, modalities: Modalities) -> Pairs:
    """Return the pairs of `hf:NAME[:CONFIG][@SPLIT][?limit=N]` (with a limit only that many rows are fetched), of a
    parquet or Arrow file or a glob of them, or of a folder written by `save_to_disk`.

    Raises:
        PairsError: it cannot be loaded.
    """
    import datasets

    found = _NAME.fullmatch(path)
    if found is None and path.startswith(PREFIX):
        raise PairsError(
            expected="hf:owner/name:config@split?limit=N, each part once and all but the name optional",
            found=repr(path),
            fix="write for example hf:owner/name@train",
        )
    if (Path(path) / _SPLITS).is_file():
        splits = sorted(p.parent.name for p in Path(path).glob("*/state.json"))
        raise PairsError(
            expected="one split of a dataset",
            found=f"the folder {path} with the splits {', '.join(splits) or 'none'}",
            fix=f"name one of them: {Path(path) / (splits or ['train'])[0]}",
        )
    try:
        if found is not None:
            limit = None if found["limit"] is None else int(found["limit"])
            dataset = datasets.load_dataset(
                found["name"], found["config"], split=found["split"] or "train", streaming=limit is not None
            )
        elif (Path(path) / "state.json").is_file():
            dataset, limit = datasets.load_from_disk(path), None
        else:
            kind = _FILES[Path(path).suffix.lower()]
            dataset, limit = datasets.load_dataset(kind, data_files=path, split="train"), None
    except Exception as error:
        # `datasets` passes on any error of the file system, the hub or the format.
        raise PairsError(
            expected=f"a dataset that `datasets` loads at {path}",
            found=_why(error),
            fix="check the name; hub names look like hf:owner/name@split" if found else "check the path and the file",
        ) from error
    return from_dataset(dataset, columns=columns, modalities=modalities, image_root=root, limit=limit, name=path)


def _why(error: BaseException) -> str:
    """Return the first line of the root cause of an error of `datasets`."""
    while error.__cause__ is not None:
        error = error.__cause__
    first = (str(error).splitlines() or [""])[0].rstrip(".")
    return "no rows" if first.startswith("BatchSize must be") else first or type(error).__name__


def from_dataset(
    dataset: "datasets.Dataset | datasets.IterableDataset",
    *,
    columns: Columns = (None, None, None),
    modalities: Modalities = "both",
    image_root: Path | None = None,
    limit: int | None = None,
    name: str = "dataset",
) -> Pairs:
    """Return the pairs of a dataset in memory. A streaming one is first written to disk by `datasets`.

    Args:
        dataset: the dataset.
        columns: names of the image, caption and id columns; None looks for the usual names.
        modalities: "image" needs no captions, "text" no images.
        image_root: folder of images given as file names.
        limit: number of rows to read; None reads all.
        name: name of the pairs.

    Raises:
        PairsError: a column that is needed is missing.
    """
    import datasets

    n_rows = None
    if isinstance(dataset, datasets.IterableDataset):
        dataset = _spooled(dataset if limit is None else dataset.take(limit))
    elif limit is not None:
        n_rows = len(dataset)
        dataset = dataset.take(min(limit, n_rows))
    chosen = which_columns(columns, dataset.column_names, modalities, name)
    image, caption, identity = chosen
    if image is not None and isinstance(dataset.features[image], datasets.Image):
        dataset = dataset.cast_column(image, datasets.Image(decode=False))
    if caption is not None and isinstance(dataset.features[caption], datasets.ClassLabel):
        dataset = _with_names(dataset, caption)
    rows, captions, bad = _captions(dataset, caption)
    stem = Path(name).stem
    if identity is None:
        ids = Strings.of(f"{stem}-{row:08d}" for row in rows)
    else:
        known = _strings(_column_of(dataset, identity))
        ids = Strings.of(known[row] or f"{stem}-{row:08d}" for row in rows)
    images = None if image is None else DatasetImages(dataset.select_columns([image]), rows, image_root)
    return Pairs(
        ids,
        images,
        captions,
        name=name,
        bad_captions=bad,
        rows=rows,
        n_rows=len(dataset) if n_rows is None else n_rows,
        image_keys=_picture_keys(dataset, picture_column(dataset.column_names, chosen), rows),
    )


def _with_names(dataset: "datasets.Dataset", column: str) -> "datasets.Dataset":
    """The dataset with the names of a column of classes in place of their numbers."""
    names = dataset.features[column].names
    numbers = _column_of(dataset, column).to_pylist()
    said = [names[n] if n is not None and 0 <= n < len(names) else None for n in numbers]
    return dataset.remove_columns([column]).add_column(column, said)


def _captions(
    dataset: "datasets.Dataset", caption: str | None
) -> tuple[Int64[np.ndarray, " pair"], Strings | None, dict[int, str]]:
    """Return the row and the caption of each pair (a row may have several captions), and the bad captions."""
    every = np.arange(len(dataset), dtype=np.int64)
    if caption is None:
        return every, None, {}
    column = _column_of(dataset, caption)
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return every, Strings(column), {}
    if (pa.types.is_list(kind) or pa.types.is_large_list(kind)) and pa.types.is_string(kind.value_type):
        counts = pc.fill_null(pc.list_value_length(column), 0).to_numpy().astype(np.int64)
        if len(counts) and counts.min() > 0:
            return np.repeat(every, counts), Strings(pc.list_flatten(column)), {}
    return _slow_captions(captions_of(value) for chunk in column.iterchunks() for value in chunk.to_pylist())


def _slow_captions(
    found: Iterator[list[Caption]],
) -> tuple[Int64[np.ndarray, " pair"], Strings, dict[int, str]]:
    rows, texts, bad = list[int](), Growing(), dict[int, str]()
    for row, captions in enumerate(found):
        for one in captions:
            if isinstance(one, BadCaption):
                bad[len(rows)] = one.reason
            texts.append(one if isinstance(one, str) else None)
            rows.append(row)
    return np.array(rows, dtype=np.int64), texts.done(), bad


def _picture_keys(
    dataset: "datasets.Dataset", column: str | None, rows: Int64[np.ndarray, " pair"]
) -> Int64[np.ndarray, " pair"] | None:
    if column is None:
        return None
    keys = [hash(("row", n)) if i is None else hash(i) for n, i in enumerate(_strings(_column_of(dataset, column)))]
    return np.array(keys, dtype=np.int64)[rows]


def _column_of(dataset: "datasets.Dataset", name: str) -> pa.ChunkedArray:
    """Return a column as it lies on disk, mapped, unless the dataset is a selection of rows."""
    return dataset.select_columns([name]).with_format("arrow")[:][name]


def _strings(column: pa.ChunkedArray) -> Strings:
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return Strings(column)
    return Strings.of(id_of(v) for chunk in column.iterchunks() for v in chunk.to_pylist())


class DatasetImages(LazyImages):
    """Images of a dataset's column: bytes, or files below `root`."""

    def __init__(self, dataset: "datasets.Dataset", rows: Int64[np.ndarray, " image"], root: Path | None) -> None:
        self.dataset, self.rows, self.root = dataset, rows, root or Path()
        self.column = dataset.column_names[0]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> ImageSource | None:  # type: ignore[override]
        image = image_of(self.dataset[int(self.rows[index])][self.column])
        return self.root / image if isinstance(image, str) else image

    def keys(self) -> Int64[np.ndarray, " image"]:
        """Return a number per image that is equal for the same row, or for the same file name."""
        column = _column_of(self.dataset, self.column)
        if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
            return self.rows
        names = [hash((n,)) if name is None else hash(name) for n, name in enumerate(Strings(column))]
        return np.array(names, dtype=np.int64)[self.rows]

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
