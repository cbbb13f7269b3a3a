"""Write a comparison as compare.csv (one row per dictionary) and compare.json (everything)."""

import csv
import io
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cliplens.files import write_json, write_text
from cliplens.run import versions
from cliplens_plugins.comparison.compare import Comparison, rows_of
from cliplens_plugins.comparison.noise import LEVEL

FORMAT = "cliplens-comparison-1"


def save_csv(path: Path, found: Comparison) -> None:
    """Write one row per dictionary; figures that are not known are empty."""
    rows = rows_of(found)
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: "" if _unknown(v) else v for k, v in row.items()} for row in rows)
    write_text(path, text.getvalue())


def save_json(path: Path, found: Comparison) -> None:
    """Write figures, configurations, noise, differences and notes."""
    write_json(path, as_json(found))


def as_json(found: Comparison) -> dict[str, Any]:
    """Return the comparison as plain values."""
    return {
        "format": FORMAT,
        "pictures": found.pictures,
        "level": LEVEL,
        "figures": [asdict(figure) for figure in found.figures],
        "dictionaries": rows_of(found),
        "configurations": {
            name: {
                "dictionaries": [s.name for s in members],
                "figures": {
                    figure: {
                        "value": m.value,
                        "low": m.low,
                        "high": m.high,
                        "control": m.control,
                        "seeds": m.of_seeds,
                    }
                    for figure, m in found.measured[name].items()
                },
            }
            for name, members in found.configurations.items()
        },
        "noise": {name: asdict(noise) for name, noise in found.noise.items()},
        "differences": [asdict(d) for d in found.differences],
        "notes": list(found.notes),
        "versions": versions(),
    }


def _unknown(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value)  # noqa: PLR0124
