"""Save and load exemplars: a table of top samples, thumbnails, and activations by position.

`exemplars.parquet` has one row per sample of a latent, `images/` holds thumbnails.

| column   | meaning                                                                                         |
|----------|-------------------------------------------------------------------------------------------------|
| latent   | index of the latent                                                                             |
| modality | `image` or `text`: what the latent fired on                                                     |
| rank     | 0 = strongest                                                                                   |
| id       | id of the pair                                                                                  |
| value    | activation of the latent on this sample                                                         |
| caption  | the pair's caption; null where it has none                                                      |
| image    | thumbnail in `images/`; null where the picture can no longer be read, and for weaker samples    |

Thumbnails are WebP, lossless for tiny pictures. The name of a thumbnail is made of its pair and its content. The table
is written last, and unused thumbnails are removed after it, so at any moment all pictures in the table exist.

`positions.parquet` is there for dictionaries read inside the towers. It has one row per latent, modality and rank of a
strong sample.

| column       | meaning                                                                                   |
|--------------|-------------------------------------------------------------------------------------------|
| values       | activation at each patch, row by row, or at each token of the caption                     |
| rows, cols   | number of rows and columns of patches; 0 for captions                                     |
| starts, ends | first character of each token of a caption, and the one after its last; null for images   |
"""

import hashlib
import io
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Int32
from PIL import Image

from cliplens.errors import DamagedError, PairsError
from cliplens.exemplar_tables import check_columns, check_range, shapes_of, thumbnail_path
from cliplens.files import atomic_write, partial_path
from cliplens.pairs import open_image
from cliplens.progress import Bar
from cliplens.records import Exemplars, Pair, PositionActivations, Positions
from cliplens.sites import Modality

TINY = 96
"""Longest side, in pixels, up to which a thumbnail holds every pixel of the picture."""
THUMBNAIL = 192
"""Longest side of the thumbnails of larger pictures, in pixels: sharp at 96 pixels on a screen of double density."""
PICTURES = {"image": 12, "text": 8}
"""Number of top samples of a latent whose pictures are kept; for captions too, because raters see whole pairs."""
TABLE = "exemplars.parquet"
POSITIONS = "positions.parquet"
_SCHEMA = pa.schema(
    [
        ("latent", pa.int32()),
        ("modality", pa.string()),
        ("rank", pa.int32()),
        ("id", pa.string()),
        ("value", pa.float64()),
        ("caption", pa.string()),
        ("image", pa.string()),
    ],
)
_REPEATED = ["modality", "id", "caption", "image"]
_HELD = pa.schema([(f.name, pa.dictionary(pa.int32(), f.type) if f.name in _REPEATED else f.type) for f in _SCHEMA])
"""The schema in memory, where each text is held once; in the file, the columns are strings."""
_ROWS = 2**18
"""Rows that are written at a time, with their texts repeated."""
_DICTIONARY = 2**28
"""Most bytes of texts that a column of the file stores once each. Beyond that, it repeats them."""

_POSITIONS_SCHEMA = pa.schema(
    [
        ("latent", pa.int32()),
        ("modality", pa.string()),
        ("rank", pa.int32()),
        ("rows", pa.int32()),
        ("cols", pa.int32()),
        ("values", pa.list_(pa.float32())),
        ("starts", pa.list_(pa.int32())),
        ("ends", pa.list_(pa.int32())),
    ]
)


def save_exemplars(folder: Path, images: Exemplars | None, texts: Exemplars | None) -> None:
    """Write the top samples of each latent into `folder` (the `exemplars` folder of a run), whole or not at all.

    `load_exemplars` returns them with thumbnails in place of the pictures. A sample whose picture can no longer be read
    has no thumbnail.
    """
    given = [e for e in (images, texts) if e is not None]
    thumbnails = _save_thumbnails(folder / "images", [p for e in given for p in _pictured(e)])
    sizes = {f"{e.modality}_shape": "x".join(str(n) for n in e.at.shape) for e in given}
    schema = _SCHEMA.with_metadata(sizes)
    with (
        atomic_write(folder / TABLE) as partial,
        pq.ParquetWriter(partial, schema, dictionary_pagesize_limit=_DICTIONARY) as writer,
    ):
        for table in (_rows(exemplars, thumbnails) for exemplars in given):
            for start in range(0, len(table), _ROWS):
                writer.write_table(table.slice(start, _ROWS).cast(schema))
    kept = set(thumbnails.values())
    for stale in (folder / "images").glob("*"):
        if stale.name not in kept:
            stale.unlink()


def load_exemplars(folder: Path) -> tuple[Exemplars | None, Exemplars | None]:
    """Read the exemplars of images and of texts that `save_exemplars` wrote; None for a modality that was not saved.

    Raises:
        DamagedError: the table cannot be read, has columns of other types, or names a thumbnail that is missing.
    """
    try:
        table = pq.read_table(folder / TABLE, read_dictionary=_REPEATED).select(_SCHEMA.names)
        shapes = shapes_of(table.schema.metadata or {})
        check_columns(table, _SCHEMA, optional=("caption", "image"), file=folder / TABLE)
        table = table.cast(_HELD).combine_chunks()
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise DamagedError(
            expected=f"the exemplars of a run in {folder}",
            found=f"{type(error).__name__}: {error}",
            fix="score the run again",
        ) from error
    return _read("image", table, shapes, folder), _read("text", table, shapes, folder)


def save_positions(folder: Path, positions: Positions) -> None:
    """Write the activations of latents at each position of their exemplars; remove the file for an empty mapping."""
    if not positions:
        (folder / POSITIONS).unlink(missing_ok=True)
        return
    columns: dict[str, list[Any]] = {name: [] for name in _POSITIONS_SCHEMA.names}
    for (modality, latent, rank), heat in sorted(positions.items()):
        rows, cols = heat.grid or (0, 0)
        starts, ends = ([span[end] for span in heat.spans] for end in (0, 1))
        row = (latent, modality, rank, rows, cols, heat.values, *((None, None) if heat.grid else (starts, ends)))
        for column, value in zip(columns.values(), row, strict=True):
            column.append(value)
    with atomic_write(folder / POSITIONS) as partial:
        pq.write_table(pa.table(columns, schema=_POSITIONS_SCHEMA), partial, compression="zstd")


def load_positions(folder: Path) -> dict[tuple[Modality, int, int], PositionActivations]:
    """Read the activations that `save_positions` wrote; empty without a file.

    Raises:
        DamagedError: the file cannot be read, or holds something else.
    """
    if not (folder / POSITIONS).exists():
        return {}
    try:
        table = pq.read_table(folder / POSITIONS, schema=_POSITIONS_SCHEMA)
        check_columns(table, _POSITIONS_SCHEMA, optional=("starts", "ends"), file=folder / POSITIONS)
        return _positions_of(table)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DamagedError(
            expected=f"{POSITIONS} of a run in {folder}",
            found=f"{type(error).__name__}: {error}",
            fix="score the run again",
        ) from error


def strongest(exemplars: Exemplars | None, top: int) -> Exemplars | None:
    """Return the first `top` samples of each latent."""
    if exemplars is None:
        return None
    return replace(exemplars, at=exemplars.at[:, :top], values=exemplars.values[:, :top])


def thumbnail(image: Image.Image) -> tuple[bytes, str]:
    """Return a WebP file of a picture and its suffix: lossless up to `TINY` pixels, at most `THUMBNAIL` above."""
    out = io.BytesIO()
    if max(image.size) <= TINY:
        image.convert("RGB").save(out, "WEBP", lossless=True, method=0)
        return out.getvalue(), "webp"
    small = image.convert("RGB")
    small.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    small.save(out, "WEBP", quality=82, method=4)
    return out.getvalue(), "webp"


def _pictured(exemplars: Exemplars) -> list[Pair]:
    """Return the pairs whose pictures are kept."""
    at = exemplars.at[:, : PICTURES[exemplars.modality]]
    return [exemplars.pairs[p] for p in np.unique(at[at >= 0])]


def _save_thumbnails(folder: Path, pairs: Sequence[Pair]) -> dict[str, str]:
    folder.mkdir(parents=True, exist_ok=True)
    names: dict[str, str] = {}
    unique = {pair.id: pair for pair in pairs}
    for pair in Bar(unique.values(), desc="thumbnails", unit="image"):
        if pair.source is None:
            continue
        try:
            content, suffix = thumbnail(open_image(pair))
        except PairsError:
            continue
        name = f"{_file_stem(pair.id)}-{hashlib.blake2b(content, digest_size=6).hexdigest()}.{suffix}"
        _write(folder / name, content)
        names[pair.id] = name
    return names


def _write(file: Path, content: bytes) -> None:
    """Write a file atomically, without waiting for the disk, because there are many thumbnails."""
    if file.exists() and file.read_bytes() == content:
        return
    partial = partial_path(file)
    partial.write_bytes(content)
    partial.replace(file)


def _file_stem(pair_id: str) -> str:
    """Return a file name that is valid on every file system, with a hash that distinguishes similar ids."""
    readable = re.sub(r"[^A-Za-z0-9_-]+", "_", pair_id)[-40:].lower()
    return f"{readable}-{hashlib.blake2b(pair_id.encode(), digest_size=4).hexdigest()}"


def _rows(exemplars: Exemplars, thumbnails: dict[str, str]) -> pa.Table:
    latents, ranks = np.nonzero(exemplars.at >= 0)
    at, pairs = exemplars.at[latents, ranks].astype(np.int32), exemplars.pairs
    columns = {
        "latent": latents.astype(np.int32),
        "modality": _repeated(np.zeros_like(at), [exemplars.modality]),
        "rank": ranks.astype(np.int32),
        "id": _repeated(at, [p.id for p in pairs]),
        "value": exemplars.values[latents, ranks].astype(np.float64),
        "caption": _repeated(at, [p.caption for p in pairs]),
        "image": _repeated(at, [thumbnails.get(p.id) for p in pairs]),
    }
    return pa.table(columns, schema=_HELD)


def _repeated(at: Int32[np.ndarray, " row"], texts: Sequence[str | None]) -> pa.DictionaryArray:
    """Return the text at each index, null for None. Each text is held once."""
    missing = np.array([text is None for text in texts], dtype=bool)
    return pa.DictionaryArray.from_arrays(
        pa.array(at, mask=missing[at]), pa.array([t or "" for t in texts], pa.string())
    )


def _read(modality: Modality, table: pa.Table, shapes: dict[str, tuple[int, int]], folder: Path) -> Exemplars | None:
    if f"{modality}_shape" not in shapes:
        return None
    shape = shapes[f"{modality}_shape"]
    try:
        own = table.filter(pc.equal(table.column("modality"), modality)).combine_chunks()
        for name, count in zip(("latent", "rank"), shape, strict=True):
            check_range(name, own.column(name), count)
        names = own.column("id").combine_chunks()
        _, first, of_name = np.unique(names.indices.to_numpy(), return_index=True, return_inverse=True)
        order = np.argsort(first)  # pairs in the order of their first rows, as they were saved
        place = np.argsort(order)[of_name]
        latents, ranks = (own.column(name).to_numpy() for name in ("latent", "rank"))
        at, values = np.full(shape, -1, dtype=np.int64), np.zeros(shape)
        at[latents, ranks], values[latents, ranks] = place, own.column("value").to_numpy()
        rows = own.take(first[order])
        texts = [rows.column(name).to_pylist() for name in ("id", "image", "caption")]
    except (IndexError, TypeError, ValueError, MemoryError, pa.ArrowException) as error:
        raise DamagedError(
            expected=f"samples of {shape[0]} latents with at most {shape[1]} ranks in {folder}",
            found=f"{type(error).__name__}: {error}",
            fix="write them again with run --resume",
        ) from error
    pairs = tuple(Pair(one, thumbnail_path(folder, image), caption) for one, image, caption in zip(*texts, strict=True))
    return Exemplars(modality, pairs, at, values)


def _positions_of(table: pa.Table) -> dict[tuple[Modality, int, int], PositionActivations]:
    found: dict[tuple[Modality, int, int], PositionActivations] = {}
    for latent, modality, rank, rows, cols, values, starts, ends in zip(
        *(table.column(name).to_pylist() for name in _POSITIONS_SCHEMA.names), strict=True
    ):
        grid = (rows, cols) if rows else None
        spans = tuple(zip(starts or (), ends or (), strict=True))
        found["image" if modality == "image" else "text", latent, rank] = PositionActivations(
            np.array(values, dtype=np.float64), grid, spans
        )
    return found
