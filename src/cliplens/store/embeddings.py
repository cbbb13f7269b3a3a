"""Use embeddings from files in place of a model."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Float, Int64

from cliplens.errors import InputError, MismatchError
from cliplens.pairs import Decoded, Decoder, Pairs
from cliplens.records import ModelIdentity, Pair
from cliplens.sites import MODALITIES, SIDES, Modality, Side, Site
from cliplens.stream import ReadBatch, SiteActs, SiteReader

HOOK = "hook_embedding"
"""The hook of the embeddings: the final embedding of each tower."""
_NAMES: Mapping[Modality, tuple[str, ...]] = {
    "image": ("image", "images", "image_embeddings", "image_embeds", "image_features", "vision", "img"),
    "text": ("text", "texts", "text_embeddings", "text_embeds", "text_features", "caption", "captions"),
}
_IDS = ("ids", "id", "keys", "key")
_KINDS = "npy, npz, parquet or safetensors"


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Embeddings of images and captions, used in place of a model in a run. Row i of both belongs to the same pair.

    It has no towers: `vision` and `text` are None.
    """

    image_rows: Float[np.ndarray, "image d_image"] | None
    text_rows: Float[np.ndarray, "text d_text"] | None
    ids: tuple[str, ...] | None = None
    name: str = "embeddings"
    vision: None = None
    text: None = None
    preprocess: None = None
    tokenizer: None = None

    def __post_init__(self) -> None:
        given = {m: rows for m in MODALITIES if (rows := self.of(m)) is not None}
        if not given:
            raise InputError(
                expected="embeddings of images or of captions", found="none", fix="pass --embeddings image.npy text.npy"
            )
        if len({len(rows) for rows in given.values()}) > 1:
            raise MismatchError(
                expected="one image embedding per text embedding",
                found=", ".join(f"{len(rows)} of {m}" for m, rows in given.items()),
                fix="save both in the same order, a row per pair",
            )
        if len({rows.shape[1] for rows in given.values()}) > 1:
            raise MismatchError(
                expected="embeddings of images and captions with the same width",
                found=", ".join(f"{m}: {rows.shape[1]}" for m, rows in given.items()),
                fix="save the embeddings after the projections into the joint space, or read one modality (--tower)",
            )
        if self.ids is not None and len(self.ids) != len(self):
            raise MismatchError(
                expected=f"one id per row ({len(self)})", found=str(len(self.ids)), fix="save as many ids as rows"
            )

    def __len__(self) -> int:
        return next(len(rows) for m in MODALITIES if (rows := self.of(m)) is not None)

    def of(self, modality: Modality) -> Float[np.ndarray, "pair _"] | None:
        """Return the embeddings of one modality."""
        return self.image_rows if modality == "image" else self.text_rows

    @property
    def device(self) -> torch.device:
        """The CPU."""
        return torch.device("cpu")

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the embeddings."""
        return torch.float32

    @property
    def towers(self) -> dict[Side, Any]:
        """No towers."""
        return {}

    @cached_property
    def identity(self) -> ModelIdentity:
        """An identity with the hash of the arrays in place of that of weights."""
        digest = hashlib.sha256()
        for modality in MODALITIES:
            rows = self.of(modality)
            digest.update(b"none" if rows is None else np.ascontiguousarray(rows).tobytes())
        return ModelIdentity(self.name, None, digest.hexdigest(), "none", "", "")


def read_embeddings(paths: Sequence[Path | str], modalities: Sequence[Modality] = MODALITIES) -> Embeddings:
    """Read embeddings from one file of both modalities or from one file each.

    An `.npy` holds one array [pair, d]. An `.npz`, `.safetensors` or `.parquet` holds arrays by name ("image", "text",
    "image_embeddings", ...; a parquet has them as columns of lists), and may hold "ids". Arrays without such a name are
    taken in the order of the files: images, then captions.

    Args:
        paths: one or two files.
        modalities: modalities to read.

    Raises:
        InputError: a file is of another kind, cannot be read, or holds no such array.
        MismatchError: numbers of rows or widths differ.
    """
    found: dict[Modality, np.ndarray] = {}
    ids: tuple[str, ...] | None = None
    unnamed: dict[str, np.ndarray] = {}
    for path in map(Path, paths):
        arrays = _arrays(path)
        known = next((arrays.pop(name) for name in _IDS if name in arrays), None)
        ids = ids if known is None else tuple(str(i) for i in known.tolist())
        named = {m: next((n for n in _NAMES[m] if n in arrays), None) for m in MODALITIES}
        for modality, name in named.items():
            if name is not None and modality not in found:
                found[modality] = arrays[name]
        if not any(named.values()):
            unnamed |= {f"{path.name}: {name}": rows for name, rows in arrays.items()}
    for modality in [m for m in modalities if m not in found]:
        chosen = _by_file(unnamed, modality)
        if chosen is not None:
            found[modality] = unnamed.pop(chosen)
    missing = [m for m in modalities if m not in found]
    if missing:
        raise InputError(
            expected=f"embeddings of {' and of '.join(missing)} in {', '.join(map(str, paths))}",
            found=f"arrays for {', '.join(found) or 'neither'}",
            fix="name the arrays 'image' and 'text', pass one file each, or read one modality (--tower vision or text)",
        )
    image, text = (_checked(found[m], m) if m in modalities else None for m in MODALITIES)
    return Embeddings(image, text, ids)


def _by_file(unnamed: Mapping[str, np.ndarray], modality: Modality) -> str | None:
    """Return the array whose name contains the modality, else the first whose name contains none."""
    speaks = {n: [m for m in MODALITIES if any(word in n.casefold() for word in _NAMES[m])] for n in unnamed}
    own = (n for n, of in speaks.items() if of == [modality])
    neutral = (n for n, of in speaks.items() if len(of) != 1)
    return next(own, None) or next(neutral, None)


def _arrays(path: Path) -> dict[str, np.ndarray]:
    kinds = {".npy": _npy, ".npz": _npz, ".safetensors": _safetensors, ".parquet": _parquet}
    kind = kinds.get(path.suffix.lower())
    if kind is None:
        raise InputError(
            expected=f"embeddings as {_KINDS}", found=f"a file ending in {path.suffix or 'nothing'!r}", fix="convert it"
        )
    try:
        return kind(path)
    except InputError:
        raise
    except Exception as error:
        # Readers of the four formats raise OSError, ValueError and errors of their own on damaged files.
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            expected=f"embeddings that can be read at {path}", found=first, fix="check the path and the file"
        ) from error


def _npy(path: Path) -> dict[str, np.ndarray]:
    return {path.stem: np.load(path, allow_pickle=False)}


def _npz(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
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
            found[name] = np.stack([np.asarray(row, dtype=np.float32) for row in column.to_pylist()])
        elif name in _IDS:
            found[name] = np.array([str(i) for i in column.to_pylist()])
        elif pa.types.is_floating(kind):
            numbers.append(column.to_numpy())
    if numbers and not set(found) - set(_IDS):
        found[path.stem] = np.stack(numbers, axis=1)
    return found


def _checked(rows: np.ndarray, modality: Modality) -> Float[np.ndarray, "pair d"]:
    matrix = rows[:, 0] if rows.ndim == 3 and rows.shape[1] == 1 else rows
    if matrix.ndim != 2 or matrix.dtype.kind not in "fiu" or not matrix.size:
        raise InputError(
            expected=f"{modality} embeddings as numbers [pair, d]",
            found=f"{rows.dtype} of shape {rows.shape}",
            fix="save one row of numbers per pair",
        )
    return np.ascontiguousarray(matrix, dtype=np.float32)


class EmbeddingsReader(SiteReader):
    """Read rows of `Embeddings`, with the interface of `SiteReader`.

    Args:
        embeddings: the arrays.
        sites: `vision.hook_embedding`, `text.hook_embedding` or both.

    Raises:
        InputError: another site is requested.
    """

    def __init__(self, embeddings: Embeddings, sites: Sequence[Site]) -> None:
        self.clip: Any = embeddings
        self.sites, self.token = tuple(dict.fromkeys(sites)), "auto"
        self.autocast, self.compiled = None, None
        wrong = [str(s) for s in self.sites if s.hook != HOOK or embeddings.of(s.modality) is None]
        if wrong:
            raise InputError(
                expected=f"sites of the embeddings: {', '.join(f'{side}.{HOOK}' for side in SIDES)}",
                found=", ".join(wrong),
                fix=f"leave --hook at {HOOK}, or run on a model with --model and --pairs",
            )
        self._rows = {site: torch.from_numpy(_needed(embeddings, site.modality)) for site in self.sites}
        self.widths = {site: rows.shape[1] for site, rows in self._rows.items()}

    def decoder(self, pairs: Pairs) -> "EmbeddingsDecoder":
        """Return a decoder that marks pairs with nan or inf in their embeddings as bad."""
        if len(pairs) != len(self.clip):
            raise MismatchError(
                expected=f"one pair per row of the embeddings ({len(self.clip)})",
                found=f"{len(pairs)} pairs",
                fix="pass one caption, image or pair per row, in the order of the rows",
            )
        return EmbeddingsDecoder(pairs, [rows.numpy() for rows in self._rows.values()])

    def read(self, decoded: Decoded) -> ReadBatch:
        """Return the rows of a batch."""
        index = torch.from_numpy(decoded.indices)
        one = torch.ones(len(index), dtype=torch.int64)
        sites = {site: SiteActs(rows[index][:, None], one, "single") for site, rows in self._rows.items()}
        return ReadBatch(decoded, sites, None, 0)


class EmbeddingsDecoder(Decoder):
    """Decode the pairs of a batch without opening images."""

    def __init__(self, pairs: Pairs, rows: Sequence[Float[np.ndarray, "pair _"]]) -> None:
        super().__init__(pairs, None, False)
        finite = np.logical_and.reduce([np.isfinite(part).all(1) for part in rows])
        object.__setattr__(self, "finite", finite)

    def __getitem__(self, indices: Int64[np.ndarray, " pair"]) -> Decoded:
        finite: np.ndarray = self.finite[indices]  # type: ignore[attr-defined]
        kept = indices[finite]
        bad = tuple((pair, "nan or inf in its embedding") for pair in self._pairs(indices[~finite]))
        return Decoded(indices, kept, tuple(self.pairs.id_at(i) for i in kept.tolist()), None, None, bad)

    def _pairs(self, indices: Int64[np.ndarray, " pair"]) -> Iterator[Pair]:
        return (self.pairs.unidentified(int(index)) for index in indices)


def _needed(embeddings: Embeddings, modality: Modality) -> np.ndarray:
    rows = embeddings.of(modality)
    assert rows is not None  # __init__ checked that every site has rows.
    return rows
