"""Read embeddings from npy, npz, parquet and safetensors files."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float

from cliplens.errors import InputError
from cliplens.pairs.cells import id_of
from cliplens.sites import MODALITIES, Modality
from cliplens.store.embeddings import Embeddings

_NAMES: Mapping[Modality, tuple[str, ...]] = {
    "image": ("image", "images", "image_embeddings", "image_embeds", "image_features", "vision", "img"),
    "text": ("text", "texts", "text_embeddings", "text_embeds", "text_features", "caption", "captions"),
}
_IDS = ("ids", "id", "keys", "key")
_KINDS = "npy, npz, parquet or safetensors"


def read_embeddings(paths: Sequence[Path | str], modalities: Sequence[Modality] = MODALITIES) -> Embeddings:
    """Read embeddings from one file of both modalities or from one file each.

    An `.npy` holds one array [pair, d]. An `.npz`, `.safetensors` or `.parquet` holds arrays by name ("image", "text",
    "image_embeddings", ...; a parquet has them as columns of lists), and may hold "ids". Arrays without such a name are
    taken in the order of the files: images, then captions.

    Args:
        paths: one or two files.
        modalities: modalities to read.

    Raises:
        InputError: a file is of another kind, cannot be read, holds no such array, or is not needed.
        MismatchError: numbers of rows or widths differ.
    """
    if len(paths) > len(MODALITIES):
        raise InputError(
            expected="one or two files of embeddings",
            found=f"{len(paths)}: {', '.join(map(str, paths))}",
            fix="pass --embeddings image.npy text.npy",
        )
    found: dict[Modality, np.ndarray] = {}
    ids: tuple[str, ...] | None = None
    unnamed: dict[str, np.ndarray] = {}
    notes: list[str] = []
    doubled = len({_named(p) for p in paths}) < len(paths)
    for path in map(Path, paths):
        arrays = _arrays(path)
        known = next((arrays.pop(name) for name in _IDS if name in arrays), None)
        ids = ids if known is None else _ids(known, path)
        named = {m: None if doubled else next((n for n in _NAMES[m] if n in arrays), None) for m in MODALITIES}
        for modality, name in named.items():
            if name is not None and modality not in found:
                found[modality] = arrays.pop(name)
        if not any(named.values()):
            unnamed |= {f"{path}: {name}": rows for name, rows in arrays.items()}
        elif arrays:
            notes.append(f"{path.name}: not read: {', '.join(arrays)}")
    for modality in [m for m in modalities if m not in found]:
        chosen = next(iter(unnamed), None) if doubled else _by_file(unnamed, modality)
        if chosen is not None:
            found[modality] = unnamed.pop(chosen)
            notes.append(f"Embeddings of {modality} were taken from {chosen}, which does not say so by its name")
    if unnamed:
        notes.append(f"Embeddings not read: {', '.join(unnamed)}")
    missing = [m for m in modalities if m not in found]
    if missing:
        raise InputError(
            expected=f"embeddings of {' and of '.join(missing)} in {', '.join(map(str, paths))}",
            found=f"arrays for {', '.join(found) or 'neither'}",
            fix="name the arrays 'image' and 'text', pass one file each, or read one modality (--tower vision or text)",
        )
    image, text = (_checked(found[m], m) if m in modalities else None for m in MODALITIES)
    return Embeddings(image, text, ids, notes=tuple(notes))


def _named(path: Path | str) -> str:
    return Path(path).stem


def _ids(known: np.ndarray, path: Path) -> tuple[str, ...]:
    if known.ndim != 1:
        raise InputError(
            expected=f"ids as one row of names in {path}",
            found=f"an array of shape {known.shape}",
            fix="save one id per row",
        )
    return tuple(i.decode("utf-8", "replace") if isinstance(i, bytes) else str(id_of(i)) for i in known.tolist())


def _by_file(unnamed: Mapping[str, np.ndarray], modality: Modality) -> str | None:
    """Return the array whose name contains the modality, else the first whose name contains none."""
    own_name = {n: n.rpartition("/")[2].casefold() for n in unnamed}  # folders above say nothing
    speaks = {n: [m for m in MODALITIES if any(word in own_name[n] for word in _NAMES[m])] for n in unnamed}
    own = (n for n, of in speaks.items() if of == [modality])
    neutral = (n for n, of in speaks.items() if len(of) != 1)
    return next(own, None) or next(neutral, None)


def _arrays(path: Path) -> dict[str, np.ndarray]:
    kinds = {".npy": _npy, ".npz": _npz, ".safetensors": _safetensors, ".parquet": _parquet}
    kind = kinds.get(path.suffix.lower())
    if kind is None:
        ending = "a folder" if path.is_dir() else f"a file ending in {path.suffix or 'nothing'!r}"
        raise InputError(expected=f"embeddings as {_KINDS}", found=f"{path}, {ending}", fix="save them with numpy.save")
    if not path.is_file():
        raise InputError(expected=f"embeddings that can be read at {path}", found="no such file", fix="check the path")
    try:
        return kind(path)
    except InputError:
        raise
    except Exception as error:
        # Readers of the four formats raise OSError, ValueError and errors of their own on damaged files.
        first = (str(error).splitlines() or [type(error).__name__])[0]
        if "pickle" in first:  # numpy takes any file it does not know for a pickle, and advises to open it as one
            first = "a file that holds Python objects or is no array at all"
        raise InputError(
            expected=f"embeddings that can be read at {path}", found=first, fix="check the path and the file"
        ) from error


def _npy(path: Path) -> dict[str, np.ndarray]:
    return {path.stem: np.load(path, allow_pickle=False)}


def _npz(path: Path) -> dict[str, np.ndarray]:
    with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:  # np.load leaves a damaged file open
        return {name: file[name] for name in file.files}


def _safetensors(path: Path) -> dict[str, np.ndarray]:
    from safetensors.torch import load_file

    return {n: t.float().numpy() if t.is_floating_point() else t.numpy() for n, t in load_file(path).items()}


def _parquet(path: Path) -> dict[str, np.ndarray]:
    table = pq.read_table(path)
    found: dict[str, np.ndarray] = {}
    numbers: list[np.ndarray] = []
    for name in table.column_names:
        column = table.column(name)
        kind = column.type
        if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
            found[name] = _rows_of_lists(column, f"{path}: {name}")
        elif name in _IDS:
            found[name] = np.array([str(i) for i in column.to_pylist()])
        elif pa.types.is_floating(kind):
            numbers.append(column.to_numpy())
    if numbers and not set(found) - set(_IDS):
        found[path.stem] = np.stack(numbers, axis=1)
    return found


def _rows_of_lists(column: pa.ChunkedArray, where: str) -> np.ndarray:
    """A column of lists as an array; a row that is missing becomes nan, and is set aside as a bad pair."""
    lists = column.to_pylist()
    width = next((len(row) for row in lists if row is not None), 0)
    rows = np.full((len(lists), width), np.nan, dtype=np.float32)
    for number, row in enumerate(lists):
        if row is None:
            continue
        if len(row) != width:
            raise InputError(
                expected=f"lists of one length in {where}",
                found=f"{width} numbers in the first row and {len(row)} in row {number}",
                fix="save one row of numbers per pair",
            )
        rows[number] = row
    return rows


def _checked(rows: np.ndarray, modality: Modality) -> Float[np.ndarray, "pair d"]:
    matrix = rows[:, 0] if rows.ndim == 3 and rows.shape[1] == 1 else rows
    if matrix.ndim != 2 or matrix.dtype.kind not in "fiu" or not matrix.size:
        raise InputError(
            expected=f"{modality} embeddings as numbers [pair, d]",
            found=f"{rows.dtype} of shape {rows.shape}",
            fix="save one row of numbers per pair",
        )
    with np.errstate(over="ignore"):  # becomes inf, and the pair is set aside
        return np.ascontiguousarray(matrix, dtype=np.float16 if matrix.dtype == np.float16 else np.float32)
