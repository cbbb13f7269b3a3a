"""The latent table as CSV, or as parquet with what each column says."""

import csv
from pathlib import Path

import numpy as np

from cliplens.errors import InputError
from cliplens.files import atomic_write
from cliplens.records import LatentTable


def export_table(table: LatentTable, path: Path) -> Path:
    """Write the table by the ending of `path`: .csv (missing values empty) or .parquet (with the schema).

    Raises:
        InputError: another ending.
    """
    if path.suffix == ".parquet":
        with atomic_write(path) as partial:
            table.save(partial)
    elif path.suffix == ".csv":
        with atomic_write(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(list(table))
            writer.writerows(zip(*(_plain(table[name]) for name in table), strict=True))
    else:
        raise InputError(expected="a path ending in .csv or .parquet", found=str(path), fix="give such a path to --out")
    return path


def _plain(values: np.ndarray) -> list[object]:
    return ["" if v is None or (isinstance(v, float) and np.isnan(v)) else v for v in values.tolist()]
