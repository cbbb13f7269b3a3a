"""Read CSV, TSV and other delimited text files with a header line."""

from collections.abc import Iterator
from pathlib import Path

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
    names = [n for n in columns if n] or [*IMAGE_NAMES, *CAPTION_NAMES, *ID_NAMES]
    dialect = detected(path, names, delimiter=delimiter, quoting=quoting)
    rows = Rows(path, dialect)
    chosen = which_columns(columns, rows.header, modalities, str(path))
    key = chosen[0] or chosen[2]
    rows.key = rows.header.index(key) if key is not None else 0
    found = pairs_of_rows(_cells(rows), chosen, root, path.stem, picture_column=picture_column(rows.header, chosen))
    return found.noted(f"{path.name}: {dialect}", *_stray(path, rows.stray))


def _cells(rows: Rows) -> Iterator[Row]:
    for row in rows:
        cells = dict(zip(rows.header, row.cells, strict=False))
        yield cells if row.problem is None else BadRow(row.problem, cells)


def _stray(path: Path, count: int) -> list[str]:
    if not count:
        return []
    return [
        f"{path.name}: {count} rows hold a quotation mark that nothing closes; it was read as text "
        "(--quoting none reads every mark so, --quoting minimal sets such rows aside)"
    ]
