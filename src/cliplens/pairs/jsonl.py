"""JSON lines: one object per line; `caption` may be a list of captions of the same image."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cliplens.errors import PairsError
from cliplens.pairs.columns import Columns, pairs_of_rows, which_columns
from cliplens.pairs.pairs import Pairs
from cliplens.sites import Modalities


def read_jsonl(path: Path, root: Path, columns: Columns, modalities: Modalities) -> Pairs:
    """Pairs of a JSON-lines file; blank lines are passed over.

    Raises:
        PairsError: a line is not a JSON object, or no line has a column that is needed.
    """
    # Read twice: the names of the columns are all the first reading keeps.
    present = list(dict.fromkeys(name for row in _rows(path) for name in row))
    return pairs_of_rows(_rows(path), which_columns(columns, present, modalities, str(path)), root, path.stem)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield _row(line, f"line {number} of {path}")
    except UnicodeDecodeError as error:
        raise PairsError(expected=f"JSON lines in UTF-8 at {path}", found=str(error), fix="save it as UTF-8") from error


def _row(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise PairsError(
            expected=f"a JSON object on {where}", found=str(error), fix="mend or remove the line"
        ) from error
    if not isinstance(row, dict):
        raise PairsError(
            expected=f"a JSON object on {where}", found=f"a {type(row).__name__}", fix="mend or remove the line"
        )
    return row
