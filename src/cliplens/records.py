"""What passes between the floors: frozen records, no behaviour beyond reading themselves.

A *pair* is an image and its caption; a *row* is a pair after a token choice; *codes* are the latent activations of
rows; a *batch* is all a metric sees at once; a *table* has one row per latent.
"""

import html
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Bool, Float, Int, Int64, UInt64
from PIL import Image
from torch import Tensor

from cliplens.deprecation import deprecated_names
from cliplens.errors import InputError, unknown_name
from cliplens.keys import pair_keys
from cliplens.sites import Modality

ImageSource = Path | bytes | Image.Image
Sharing = Literal["shared", "image", "text"]


@dataclass(frozen=True)
class Pair:
    """An image and its caption; either may be missing where only one modality is needed."""

    id: str
    image: ImageSource | None
    caption: str | None


@dataclass(frozen=True)
class ModelIdentity:
    """Which model, exactly: what a dictionary or a cache must agree with."""

    name: str
    pretrained: str | None
    weights_sha256: str
    preprocess: str
    preprocess_sha256: str
    tokenizer_sha256: str
    adapters: str | None = None
    """Fine-tuning adapters (LoRA) found in the weights, merged or not; None when there are none."""


@dataclass(frozen=True)
class PairedActs:
    """Activations of both towers, row by row in step: row i of `image` and row i of `text` belong to `ids[i]`."""

    ids: tuple[str, ...]
    image: Float[Tensor, "row d_image"] | None
    text: Float[Tensor, "row d_text"] | None

    def __post_init__(self) -> None:
        for name in ("image", "text"):
            acts = getattr(self, name)
            if acts is not None and len(acts) != len(self.ids):
                raise InputError(
                    expected=f"one row of {name} activations per id ({len(self.ids)})",
                    found=f"{len(acts)} rows",
                    fix="keep images, captions and ids in step",
                )

    def __len__(self) -> int:
        return len(self.ids)

    def of(self, modality: Modality) -> Float[Tensor, "row d_in"] | None:
        """The activations of one modality."""
        return self.image if modality == "image" else self.text

    @cached_property
    def keys(self) -> UInt64[np.ndarray, " row"]:
        """The 64-bit key of each row's pair (see `cliplens.keys`)."""
        return pair_keys(self.ids)


@dataclass(frozen=True)
class SparseCodes:
    """The firing entries of a [row, d_sae] code matrix, sorted by row, then latent; zeros are never listed."""

    rows: Int64[Tensor, " firing"]
    latents: Int64[Tensor, " firing"]
    values: Float[Tensor, " firing"]
    n_rows: int
    d_sae: int

    @classmethod
    def from_dense(cls, codes: Float[Tensor, "row d_sae"]) -> "SparseCodes":
        """The non-zero entries of a dense code matrix."""
        rows, latents = codes.nonzero(as_tuple=True)
        return cls(rows, latents, codes[rows, latents], codes.shape[0], codes.shape[1])

    def dense(self) -> Float[Tensor, "row d_sae"]:
        """The whole matrix, zeros included."""
        out = self.values.new_zeros(self.n_rows, self.d_sae)
        out[self.rows, self.latents] = self.values
        return out


@dataclass(frozen=True)
class JointFirings:
    """Every (row, latent) that fires in at least one modality, once, with both activations (one of them may be 0)."""

    rows: Int64[Tensor, " firing"]
    latents: Int64[Tensor, " firing"]
    image: Float[Tensor, " firing"]
    text: Float[Tensor, " firing"]


@dataclass(frozen=True)
class PairedCodes:
    """Codes of both modalities by one dictionary, row by row in step."""

    ids: tuple[str, ...]
    image: SparseCodes | None
    text: SparseCodes | None

    def __len__(self) -> int:
        return len(self.ids)

    def of(self, modality: Modality) -> SparseCodes | None:
        """The codes of one modality."""
        return self.image if modality == "image" else self.text

    @property
    def d_sae(self) -> int:
        """Number of latents of the dictionary."""
        for codes in (self.image, self.text):
            if codes is not None:
                return codes.d_sae
        raise InputError(expected="codes of at least one modality", found="none", fix="encode images or captions first")

    @cached_property
    def keys(self) -> UInt64[np.ndarray, " row"]:
        """The 64-bit key of each row's pair (see `cliplens.keys`)."""
        return pair_keys(self.ids)

    @cached_property
    def joint(self) -> JointFirings:
        """The firings of both modalities joined by (row, latent), once per batch for every metric that needs them."""
        if self.image is None or self.text is None:
            raise InputError(
                expected="codes of both modalities",
                found="codes of one",
                fix="give image-caption pairs where a metric compares modalities",
            )
        image, text = self.image, self.text
        image_at = image.rows * self.d_sae + image.latents
        text_at = text.rows * self.d_sae + text.latents
        found = torch.searchsorted(text_at, image_at)
        padded = torch.nn.functional.pad(text_at, (0, 1), value=-1)
        matched = padded[found] == image_at
        alone = torch.ones_like(text_at, dtype=torch.bool)
        alone[found[matched]] = False
        on_caption = image.values.new_zeros(len(image_at))
        on_caption[matched] = text.values[found[matched]].to(on_caption)
        return JointFirings(
            torch.cat([image.rows, text.rows[alone]]),
            torch.cat([image.latents, text.latents[alone]]),
            torch.cat([image.values, image.values.new_zeros(int(alone.sum()))]),
            torch.cat([on_caption, text.values[alone].to(on_caption)]),
        )


@dataclass(frozen=True)
class GroundTruth:
    """What the pairs really show and say: a value per pair and factor, and which modality carries the factor."""

    ids: tuple[str, ...]
    factors: Mapping[str, Int[np.ndarray, " pair"]]
    values: Mapping[str, tuple[str, ...]]
    sharing: Mapping[str, Sharing]

    def rows(self, ids: Sequence[str]) -> dict[str, Int[np.ndarray, " row"]]:
        """The factor values of the pairs named, in their order."""
        place = np.array([self._place[i] for i in ids], dtype=np.int64)
        return {name: values[place] for name, values in self.factors.items()}

    @cached_property
    def _place(self) -> dict[str, int]:
        return {i: n for n, i in enumerate(self.ids)}


@dataclass(frozen=True)
class Batch:
    """All a metric sees at once. Activations are as the dictionary sees them (centred when it was trained centred)."""

    acts: PairedActs
    codes: PairedCodes
    reconstruction: PairedActs
    judged: Mapping[str, PairedActs] = field(default_factory=dict)
    """Judge name -> unit-norm embeddings of the same rows by that judge."""
    truth: GroundTruth | None = None
    """What the pairs really show and say, where it is known; `truth.rows(batch.ids)` gives the values of these rows."""
    targets: Mapping[str, Bool[np.ndarray, " row"]] = field(default_factory=dict)
    """Something asked about the pairs -> of which rows it is true: a label, or that the pair is retrieved."""
    raw: PairedActs | None = None
    """Activations as the towers gave them, before centring."""

    @property
    def ids(self) -> tuple[str, ...]:
        """Pair id of each row."""
        return self.codes.ids


@dataclass(frozen=True)
class Column:
    """One column of `latents.parquet`: what it says, and where the definition comes from."""

    name: str
    about: str
    unit: str = ""
    range: str = ""
    nan: str = "never"
    source: str = "ours"


@dataclass(frozen=True)
class LatentTable:
    """One row per latent, one column per metric. Columns are numpy arrays of length d_sae; `schema` explains them.

    A column may hold a row of numbers per latent, all of one length: an array of two axes, on disk a list.
    """

    columns: Mapping[str, np.ndarray]
    schema: Mapping[str, Column] = field(default_factory=dict)

    def __post_init__(self) -> None:
        lengths = {name: len(values) for name, values in self.columns.items()}
        if len(set(lengths.values())) > 1:
            raise InputError(
                expected="columns of one length (d_sae)",
                found=str(lengths),
                fix="give one value per latent in each column",
            )

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def __contains__(self, name: object) -> bool:
        return name in self.columns

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    @overload
    def __getitem__(self, name: str) -> np.ndarray: ...
    @overload
    def __getitem__(self, name: int) -> "Latent": ...
    def __getitem__(self, name: str | int) -> "np.ndarray | Latent":
        if isinstance(name, int):
            if not -len(self) <= name < len(self):
                raise IndexError(f"latent {name} of {len(self)}")
            return Latent(
                name % len(self), {column: values[name] for column, values in self.columns.items()}, self.schema
            )
        if name not in self.columns:
            raise unknown_name("column", name, self.columns)
        return self.columns[name]

    def top(self, column: str, count: int = 10, *, lowest: bool = False) -> "LatentTable":
        """The rows with the highest values of a column (the lowest on request), in that order; nan is left out."""
        values = np.asarray(self[column], dtype=np.float64)
        order = np.argsort(values if lowest else -values, kind="stable")
        chosen = order[~np.isnan(values[order])][:count]
        numbered = {"latent": np.arange(len(self)), **self.columns}
        return LatentTable({name: column_values[chosen] for name, column_values in numbered.items()}, self.schema)

    def _repr_html_(self) -> str:
        heads = "".join(_cell("th", name, self.schema.get(name)) for name in self.columns)
        rows = (
            "<tr>" + "".join(_cell("td", values[k]) for values in self.columns.values()) + "</tr>"
            for k in range(min(len(self), _ROWS_SHOWN))
        )
        more = f"<p>{len(self)} latents</p>" if len(self) > _ROWS_SHOWN else ""
        return f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>{more}"

    def with_columns(self, columns: Mapping[str, np.ndarray], schema: Iterable[Column] = ()) -> "LatentTable":
        """A new table with columns added or replaced."""
        return replace(self, columns={**self.columns, **columns}, schema={**self.schema, **{c.name: c for c in schema}})

    def save(self, path: Path) -> None:
        """Write parquet; each column's `Column` travels as field metadata."""
        fields, arrays = [], []
        for name, values in self.columns.items():
            array = _arrow(values)
            about = self.schema.get(name)
            metadata = {k: str(v) for k, v in vars(about).items() if v} if about else None
            fields.append(pa.field(name, array.type, metadata=metadata))
            arrays.append(array)
        pq.write_table(pa.Table.from_arrays(arrays, schema=pa.schema(fields)), path)

    @classmethod
    def load(cls, path: Path) -> "LatentTable":
        """Read what `save` wrote."""
        table = pq.read_table(path)
        schema = {}
        for column in table.schema:
            if column.metadata:
                schema[column.name] = Column(**{k.decode(): v.decode() for k, v in column.metadata.items()})
        return cls({name: _numpy(table.column(name)) for name in table.column_names}, schema)


def _arrow(values: np.ndarray) -> pa.Array:
    if values.ndim == 2:
        return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
    return pa.array(values.tolist() if values.dtype == object else values)


def _numpy(column: pa.ChunkedArray) -> np.ndarray:
    if pa.types.is_fixed_size_list(column.type):
        flat: np.ndarray = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
        return flat.reshape(len(column), column.type.list_size)
    plain: np.ndarray = column.to_numpy(zero_copy_only=False)
    return plain


@dataclass(frozen=True)
class Latent:
    """One row of the latent table; shows itself in a notebook, each value with what it says."""

    number: int
    values: Mapping[str, Any]
    schema: Mapping[str, Column] = field(default_factory=dict)

    def __getitem__(self, column: str) -> Any:
        if column not in self.values:
            raise unknown_name("column", column, self.values)
        return self.values[column]

    def _repr_html_(self) -> str:
        rows = (
            f"<tr>{_cell('th', name, self.schema.get(name))}{_cell('td', value)}"
            f"{_cell('td', self.schema[name].about if name in self.schema else '')}</tr>"
            for name, value in self.values.items()
        )
        return f"<table><caption>Latent {self.number}</caption><tbody>{''.join(rows)}</tbody></table>"


_ROWS_SHOWN = 20


def _cell(tag: str, value: Any, column: Column | None = None) -> str:
    """A table cell; names may hold anything, so everything is escaped."""
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    title = f' title="{html.escape(column.about)}"' if column else ""
    return f"<{tag}{title}>{html.escape(text)}</{tag}>"


@dataclass(frozen=True)
class Findings:
    """What a metric found: columns of the latent table, headline figures, and small tables for the report."""

    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    schema: tuple[Column, ...] = ()
    figures: Mapping[str, Any] = field(default_factory=dict)
    """Goes to summary.json: plain numbers, strings, and dicts of them."""
    tables: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    """Title -> rows; shown in the report as they are."""
    notes: tuple[str, ...] = ()
    """Sentences a reader of the report must see."""


@dataclass(frozen=True)
class Exemplars:
    """The top samples of each latent in one modality, strongest first; ties are broken by pair id.

    `at[k, r]` is the place in `pairs` of latent k's r-th sample, -1 where fewer samples fire.
    """

    modality: Modality
    pairs: tuple[Pair, ...]
    at: Int[np.ndarray, "d_sae top"]
    values: Float[np.ndarray, "d_sae top"]

    def of(self, latent: int) -> list[tuple[Pair, float]]:
        """The samples of one latent with their activations."""
        return [(self.pairs[p], float(v)) for p, v in zip(self.at[latent], self.values[latent], strict=True) if p >= 0]


@dataclass(frozen=True)
class Heat:
    """What one latent does at every position of one of its exemplars."""

    values: Float[np.ndarray, " position"]
    """Activation at each patch (row by row from the top left) or at each token of the caption."""
    grid: tuple[int, int] | None = None
    """Of an image: rows and columns of patches."""
    spans: tuple[tuple[int, int], ...] = ()
    """Of a caption: from which character to which each token stands; an empty span is a token not found in it."""


Positions = Mapping[tuple[Modality, int, int], Heat]
"""By modality, latent and rank of the exemplar."""


@dataclass(frozen=True)
class Name:
    """A name of a latent with what speaks for it; `text` is None when there is no evidence."""

    text: str | None
    score: float
    """Higher is better; what it means is the namer's to say. nan when unnamed."""
    evidence: str = ""


@dataclass(frozen=True)
class Provenance:
    """Where a dictionary comes from; travels in its SAELens metadata and in run.toml."""

    model: ModelIdentity
    sites: tuple[str, ...]
    d_in: int
    token: str
    centred: bool
    pairs_sha256: str | None = None

    def to_json(self) -> str:
        """As JSON, keys sorted."""
        return json.dumps({**vars(self), "model": vars(self.model)}, sort_keys=True, default=list)


@dataclass(frozen=True)
class Evidence:
    """All a namer may look at: exemplars and a background from held-out pairs, decoder rows, a vocabulary.

    `*_acts` are embeddings in the space both towers share (the final embedding), whatever site the dictionary reads;
    how they are centred or scaled does not matter.
    """

    d_sae: int
    alive: Bool[np.ndarray, " d_sae"]
    images: Exemplars | None
    texts: Exemplars | None
    decoder: Float[Tensor, "d_sae d_in"]
    vocabulary: tuple[str, ...] = ()
    vocabulary_acts: Float[Tensor, "word d_embed"] | None = None
    """Embeddings of the vocabulary, each word alone or in a template."""
    image_acts: Float[Tensor, "image d_embed"] | None = None
    """Embeddings of `images.pairs`, in order."""
    text_acts: Float[Tensor, "caption d_embed"] | None = None
    """Embeddings of the captions of `texts.pairs`, in order."""
    background: tuple[Pair, ...] = ()
    """Held-out pairs taken at random, for contrast; without them the exemplars of all other latents stand in."""
    background_acts: PairedActs | None = None
    """Embeddings of `background`, in order."""
    background_codes: PairedCodes | None = None
    """Codes of `background`, in order: they say on which of them a latent is silent."""


__getattr__ = deprecated_names(__name__, {"Edit": "cliplens.edits:Edit"})
