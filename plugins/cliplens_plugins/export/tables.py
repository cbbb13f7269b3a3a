"""Export the latent table as CSV, or as parquet with the schema of its columns."""

import csv
from pathlib import Path

import numpy as np

from cliplens.errors import InputError
from cliplens.files import atomic_write
from cliplens.records import LatentTable

_FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What a spreadsheet takes for the beginning of a formula, in full width too."""


def export_table(table: LatentTable, path: Path) -> Path:
    """Write the table to a .csv file (missing values are empty) or a .parquet file (with the schema); return `path`.

    Names and other texts may hold anything. In a .csv file, a text that a spreadsheet would run as a formula gets an
    apostrophe in front.

    Raises:
        InputError: `path` has another ending.
    """
    if path.suffix == ".parquet":
        with atomic_write(path) as partial:
            table.save(partial)
    elif path.suffix == ".csv":
        with atomic_write(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow([_no_formula(name) for name in table])
            writer.writerows(zip(*(_plain(table[name]) for name in table), strict=True))
    else:
        raise InputError(
            expected="a path ending in .csv or .parquet",
            found=str(path),
            fix="give --out a path with one of these endings",
        )
    return path


def _plain(values: np.ndarray) -> list[object]:
    return [
        "" if v is None or (isinstance(v, float) and np.isnan(v)) else _no_formula(v) if isinstance(v, str) else v
        for v in values.tolist()
    ]


def _no_formula(text: str) -> str:
    """Return the text with an apostrophe in front where a spreadsheet would run it as a formula.

    >>> _no_formula("=HYPERLINK(1)"), _no_formula("a = b")
    ("'=HYPERLINK(1)", 'a = b')
    """
    return f"'{text}" if text.lstrip().startswith(_FORMULA) or text.startswith(("\t", "\r", "\n")) else text
