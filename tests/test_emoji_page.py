"""The tables of docs/emoji.md and docs/words.md are those that their benchmark scripts stored."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
LEAST = {"emoji": 30, "words": 12}
"""Rows that a page shows at least."""


def rows_of(page: str) -> dict[str, list[str]]:
    """Return the cells of every row of a table, by the first cell."""
    lines = [line.strip().strip("|").split("|") for line in page.splitlines() if line.startswith("| ")]
    return {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in lines}


def stored(name: str) -> Iterator[tuple[str, str, list[Any]]]:
    """Yield title, first cell and the other cells of every row that was stored."""
    for table in json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())["tables"]:
        for first, *cells in table["rows"]:
            yield table["title"], first, cells


def shown(cell: Any) -> list[str]:
    """Return the numbers of a stored cell as a page may print them, with one to three digits after the point."""
    parts = [cell.get(name) for name in ("value", "low", "high")] if isinstance(cell, dict) else [cell]
    return [f"{part:.{digits}f}" for part in parts if isinstance(part, float) for digits in (1, 2, 3)]


@pytest.mark.parametrize("name", LEAST)
def test_every_row_of_the_page_is_a_row_that_was_stored(name: str) -> None:
    page, found = rows_of((ROOT / "docs" / f"{name}.md").read_text()), 0
    for title, first, cells in stored(name):
        if first not in page:
            continue
        found += 1
        written = set(re.findall(r"-?\d*\.\d+", " ".join(page[first])))
        known = {number for cell in cells for number in shown(cell)}
        known |= {number for cell in cells if isinstance(cell, str) for number in re.findall(r"\d*\.\d+", cell)}
        assert written <= known, (title, first)
    assert found >= LEAST[name]
