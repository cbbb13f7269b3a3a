"""Read CSV, TSV and other delimited text files with a header line."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cliplens.errors import PairsError
from cliplens.pairs.cells import written_captions
from cliplens.pairs.columns import (
    CAPTION_NAMES,
    ID_NAMES,
    IMAGE_NAMES,
    BadRow,
    Columns,
    Row,
    pairs_of_rows,
    picture_column,
    which_columns,
)
from cliplens.pairs.dialect import Quoting, Rows, detected
from cliplens.pairs.pairs import Pairs
from cliplens.sites import Modalities


def read_table(
    path: Path,
    root: Path,
    columns: Columns,
    modalities: Modalities,
    *,
    delimiter: str | None = None,
    quoting: Quoting = "auto",
) -> Pairs:
    """Return the pairs of a table.

    A row with too many or too few cells is a bad pair. `notes` of the pairs say how the file was divided.

    Args:
        path: the file; its encoding is UTF-8, or the one its byte-order mark names.
        root: folder of image files.
        columns: names of the image, caption and id columns.
        modalities: "image" needs no captions, "text" no images.
        delimiter: character between cells; None finds it.
        quoting: see `cliplens.pairs.dialect.detected`.

    Raises:
        PairsError: a column is missing.
    """
    rows, chosen = open_table(path, columns, modalities, delimiter=delimiter, quoting=quoting)
    key = chosen[0] or chosen[2]
    rows.key = rows.header.index(key) if key is not None else 0
    picture = picture_column(rows.header, chosen)
    lists = _Lists(chosen[1])
    found = pairs_of_rows(lists.of(rows), chosen, root, path.stem, picture_column=picture)
    return found.noted(f"{path.name}: {rows.dialect}{_taken(chosen)}", *_stray(path, rows.stray), *lists.note(path))


def open_table(
    path: Path, columns: Columns, modalities: Modalities, *, delimiter: str | None = None, quoting: Quoting = "auto"
) -> tuple[Rows, Columns]:
    """Return the rows of a table, of which only the header is read yet, and the columns to read. See `read_table`.

    Raises:
        PairsError: a column is missing.
    """
    if not path.stat().st_size:
        raise PairsError(expected=f"a table in {path}", found="an empty file", fix="check the path")
    names = [n for n in columns if n] or [*IMAGE_NAMES, *CAPTION_NAMES, *ID_NAMES]
    rows = Rows(path, detected(path, names, delimiter=delimiter, quoting=quoting))
    return rows, which_columns(columns, rows.header, modalities, str(path))


class _Lists:
    """Rows as dictionaries; a caption cell that holds a list, written as text, becomes the captions in it."""

    def __init__(self, column: str | None) -> None:
        self.column, self.count = column, 0

    def of(self, rows: Rows) -> Iterator[Row]:
        for row in rows:
            cells: dict[str, Any] = dict(zip(rows.header, row.cells, strict=False))
            if row.problem is not None:
                yield BadRow(row.problem, cells)
                continue
            if self.column is not None:
                cells[self.column] = written_captions(cells[self.column])
                self.count += isinstance(cells[self.column], list)
            yield cells

    def note(self, path: Path) -> list[str]:
        return [f"{path.name}: {self.count} cells hold a list of captions"] if self.count else []


def _taken(columns: Columns) -> str:
    """Which columns were taken, where there is a choice of names."""
    told = [f"{what} from {name!r}" for what, name in zip(("images", "captions", "ids"), columns, strict=True) if name]
    return f"; {', '.join(told)}" if told else ""


def _stray(path: Path, count: int) -> list[str]:
    if not count:
        return []
    return [
        f"{path.name}: {count} rows hold a quotation mark that nothing closes; it was read as text "
        "(--quoting none reads every mark so, --quoting minimal sets such rows aside)"
    ]
