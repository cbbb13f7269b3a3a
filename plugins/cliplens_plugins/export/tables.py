"""Export the latent table as CSV, or as parquet with the schema of its columns."""

import csv
from pathlib import Path

import numpy as np

from cliplens.errors import InputError
from cliplens.files import atomic_write
from cliplens.records import LatentTable

_FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""Characters that start a formula in a spreadsheet, in ASCII and full width."""


def export_table(table: LatentTable, path: Path) -> Path:
    """Write the table to a .csv file (missing values are empty) or a .parquet file (with the schema); return `path`.

    In a .csv file, an apostrophe is put before texts that a spreadsheet would run as a formula.

    Raises:
        InputError: `path` does not end in .csv or .parquet.
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
            fix="end the path given to --out with .csv or .parquet",
        )
    return path


def _plain(values: np.ndarray) -> list[object]:
    return [
        "" if v is None or (isinstance(v, float) and np.isnan(v)) else _no_formula(v) if isinstance(v, str) else v
        for v in values.tolist()
    ]


def _no_formula(text: str) -> str:
    """Put an apostrophe before a text that a spreadsheet would run as a formula.

    >>> _no_formula("=HYPERLINK(1)"), _no_formula("a = b")
    ("'=HYPERLINK(1)", 'a = b')
    """
    return f"'{text}" if text.lstrip().startswith(_FORMULA) or text.startswith(("\t", "\r", "\n")) else text
