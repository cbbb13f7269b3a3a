"""Read JSON lines: one object per line; `caption` may be a list of captions of the same image."""

import json
from collections.abc import Iterator
from pathlib import Path

from cliplens.errors import PairsError
from cliplens.pairs.columns import BadRow, Columns, Row, pairs_of_rows, picture_column, which_columns
from cliplens.pairs.dialect import Dialect, lines_of
from cliplens.pairs.encoding import encoding_of
from cliplens.pairs.pairs import Pairs
from cliplens.sites import Modalities


def read_jsonl(path: Path, root: Path, columns: Columns, modalities: Modalities) -> Pairs:
    """Return the pairs of a JSON-lines file. Blank lines are skipped; a line that is no object is a bad pair.

    Raises:
        PairsError: no line is a JSON object, or none has a column that is needed.
    """
    # Read twice: the first reading keeps the names of the columns only.
    present: dict[str, None] = {}
    problem = None
    for row in _rows(path):
        if isinstance(row, BadRow):
            problem = problem or row.reason
        else:
            present.update(dict.fromkeys(row))
    if not present and problem is not None:
        raise PairsError(
            expected=f"a JSON object on each line of {path}", found=problem, fix="write one object per line"
        )
    chosen = which_columns(columns, list(present), modalities, str(path))
    return pairs_of_rows(_rows(path), chosen, root, path.stem, picture_column=picture_column(present, chosen))


def _rows(path: Path) -> Iterator[Row]:
    for number, line in enumerate(lines_of(path, Dialect(None, "none", encoding_of(path))), start=1):
        if line.strip():
            yield _row(line, number)


def _row(line: str, number: int) -> Row:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return BadRow(f"line {number} is not JSON: {error}")
    return row if isinstance(row, dict) else BadRow(f"line {number} is not a JSON object but a {type(row).__name__}")
