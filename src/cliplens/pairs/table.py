"""CSV and TSV files with a header line."""

import csv
from pathlib import Path

from cliplens.errors import PairsError
from cliplens.pairs.columns import Columns, pairs_of_rows, which_columns
from cliplens.pairs.pairs import Pairs
from cliplens.sites import Modalities

_LONGEST_CELL = 16 * 1024 * 1024


def read_table(path: Path, delimiter: str, root: Path, columns: Columns, modalities: Modalities) -> Pairs:
    """Pairs of a table; a row that is too short lacks what it lacks, and shows as a bad pair when it is used.

    Raises:
        PairsError: the file is not a table in UTF-8, or a column is missing.
    """
    csv.field_size_limit(_LONGEST_CELL)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, delimiter=delimiter)
            found = which_columns(columns, list(rows.fieldnames or ()), modalities, str(path))
            return pairs_of_rows(rows, found, root, path.stem)
    except (csv.Error, UnicodeDecodeError) as error:
        raise PairsError(
            expected=f"a table with a header line, in UTF-8, at {path}",
            found=str(error),
            fix="save it again as UTF-8 text",
        ) from error
