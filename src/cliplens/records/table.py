"""The latent table: one row per latent, one documented column per metric, stored as parquet."""

import html
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cliplens.errors import DamagedError, InputError, unknown_attribute, unknown_name

if TYPE_CHECKING:
    import pandas as pd

_ROWS_SHOWN = 20


@dataclass(frozen=True)
class Column:
    """Description of one column of `latents.parquet`, with the source of its definition."""

    name: str
    about: str
    unit: str = ""
    range: str = ""
    nan: str = "never"
    source: str = "ours"


@dataclass(frozen=True)
class LatentTable:
    """One row per latent, one column per metric. Columns are numpy arrays of length d_sae; `schema` describes them.

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
                fix="pass one value per latent in each column",
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
    def __getitem__(self, name: int | np.integer) -> "Latent": ...
    def __getitem__(self, name: str | int | np.integer) -> "np.ndarray | Latent":
        if isinstance(name, int | np.integer) and not isinstance(name, bool):
            if not -len(self) <= name < len(self):
                raise IndexError(f"latent {name} of {len(self)}")
            return Latent(
                int(name) % len(self), {column: values[name] for column, values in self.columns.items()}, self.schema
            )
        if not isinstance(name, str) or name not in self.columns:
            raise unknown_name("column", name, self.columns)
        return self.columns[name]

    def top(self, column: str, count: int = 10, *, lowest: bool = False) -> "LatentTable":
        """Return the rows with the highest (or lowest) values of a column, in that order; nan is left out.

        Raises:
            InputError: the column does not hold one number per latent, or `count` is below 0.
        """
        held = self[column]
        if not isinstance(held, np.ndarray) or held.ndim != 1 or held.dtype.kind not in "biuf" or count < 0:
            numbers = [n for n, v in self.columns.items() if v.ndim == 1 and v.dtype.kind in "iuf"]
            raise InputError(
                expected="a column with one number per latent, and a count of 0 or more",
                found=f"{column!r} and {count}",
                fix=f"pass one of {', '.join(map(repr, numbers[:6]))}, ... and for example 10",
            )
        values = held.astype(np.float64)
        order = np.argsort(values if lowest else -values, kind="stable")
        chosen = order[~np.isnan(values[order])][:count]
        numbered = {"latent": np.arange(len(self)), **self.columns}
        return LatentTable({name: column_values[chosen] for name, column_values in numbered.items()}, self.schema)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            column = not name.startswith("_") and name in self.columns
            raise unknown_attribute(self, name, [f"table[{name!r}]"] if column else ())

    def to_pandas(self) -> "pd.DataFrame":
        """Return a data frame with one row per latent, indexed by its number.

        `frame.attrs` holds the description of each column by its name. Rows of numbers become lists.

        >>> LatentTable({"mds": np.array([0.1, 0.9])}).to_pandas()["mds"].tolist()
        [0.1, 0.9]
        """
        import pandas as pd

        plain = {name: values if values.ndim == 1 else values.tolist() for name, values in self.columns.items()}
        index = pd.Index(plain.pop("latent", np.arange(len(self))), name="latent")
        frame = pd.DataFrame(plain, index=index)
        frame.attrs = {name: column.about for name, column in self.schema.items() if name in self.columns}
        return frame

    def __repr__(self) -> str:
        return f"LatentTable({len(self)} latents, columns {list(self.columns)})"

    def _repr_html_(self) -> str:
        heads = "".join(_cell("th", name, self.schema.get(name)) for name in self.columns)
        rows = (
            "<tr>" + "".join(_cell("td", values[k]) for values in self.columns.values()) + "</tr>"
            for k in range(min(len(self), _ROWS_SHOWN))
        )
        more = f"<p>{len(self)} latents</p>" if len(self) > _ROWS_SHOWN else ""
        return f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>{more}"

    def with_columns(self, columns: Mapping[str, np.ndarray], schema: Iterable[Column] = ()) -> "LatentTable":
        """Return a new table with columns added or replaced."""
        return replace(self, columns={**self.columns, **columns}, schema={**self.schema, **{c.name: c for c in schema}})

    def save(self, path: Path | str) -> None:
        """Write a parquet file. The `Column` of each column is stored as field metadata."""
        fields, arrays = [], []
        for name, values in self.columns.items():
            array = _arrow(values)
            about = self.schema.get(name)
            metadata = {k: str(v) for k, v in vars(about).items() if v} if about else None
            fields.append(pa.field(name, array.type, metadata=metadata))
            arrays.append(array)
        pq.write_table(pa.Table.from_arrays(arrays, schema=pa.schema(fields)), path)

    @classmethod
    def load(cls, path: Path | str) -> "LatentTable":
        """Read a table that `save` wrote.

        Raises:
            DamagedError: the file is not a table of latents.
            InputError: there is no such file.
        """
        if not Path(path).is_file():
            raise InputError(
                expected=f"a table of latents at {path}",
                found="no file",
                fix="pass the latents.parquet of a finished run",
            )
        try:
            table = pq.read_table(path)
            schema = {
                column.name: Column(**{k.decode(): v.decode() for k, v in column.metadata.items()})
                for column in table.schema
                if column.metadata
            }
            return cls({name: _numpy(table.column(name)) for name in table.column_names}, schema)
        except (pa.ArrowException, OSError, ValueError, TypeError) as error:
            if isinstance(error, FileNotFoundError | PermissionError):
                raise
            raise DamagedError(
                expected=f"a table of latents in {path}",
                found=f"{type(error).__name__}: {error}".splitlines()[0],
                fix="make it again: cliplens run --resume with the options of the run",
            ) from error


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
    """One row of the latent table. In a notebook it shows each value with its description."""

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


def _cell(tag: str, value: Any, column: Column | None = None) -> str:
    """Return an HTML table cell. All text is escaped."""
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    title = f' title="{html.escape(column.about)}"' if column else ""
    return f"<{tag}{title}>{html.escape(text)}</{tag}>"


WARNING = "Warning: "
"""Prefix of important notes: the report and the command line show them before the figures."""


@dataclass(frozen=True)
class Findings:
    """The result of a metric: columns of the latent table, headline figures, and small tables for the report."""

    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    schema: tuple[Column, ...] = ()
    figures: Mapping[str, Any] = field(default_factory=dict)
    """Figures for summary.json: plain numbers, strings, and dicts of them."""
    tables: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    """Tables for the report: rows by title."""
    notes: tuple[str, ...] = ()
    """Notes for the reader of the report, in full sentences."""
