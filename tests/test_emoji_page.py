"""The tables of docs/emoji.md are those that benchmarks/emoji.py stored."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "emoji.json"
PAGE = (ROOT / "docs" / "emoji.md").read_text()


def rows_of(page: str) -> dict[str, list[str]]:
    """Return the cells of every row of a table, by the first cell."""
    lines = [line.strip().strip("|").split("|") for line in page.splitlines() if line.startswith("| ")]
    return {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in lines}


def stored() -> Iterator[tuple[str, str, list[Any]]]:
    """Yield title, first cell and the other cells of every row that was stored."""
    for table in json.loads(RESULT.read_text())["tables"]:
        for first, *cells in table["rows"]:
            yield table["title"], first, cells


def shown(cell: Any) -> list[str]:
    """Return the numbers of a stored cell as the page prints them."""
    if isinstance(cell, dict):
        parts = [cell["value"]] if cell["low"] is None else [cell["value"], cell["low"], cell["high"]]
        return [f"{part:.2f}" for part in parts if part is not None]
    return [f"{cell:.2f}"] if isinstance(cell, float) else []


@pytest.mark.skipif(not RESULT.exists(), reason="benchmarks/emoji.py has not been run")
def test_every_row_of_the_page_is_a_row_that_was_stored() -> None:
    page, found = rows_of(PAGE), 0
    for title, first, cells in stored():
        if first not in page:
            continue
        found += 1
        written = set(re.findall(r"-?\d*\.\d+", " ".join(page[first])))
        known = {number for cell in cells for number in shown(cell)}
        known |= {number for cell in cells if isinstance(cell, str) for number in re.findall(r"\d*\.\d+", cell)}
        assert written <= known, (title, first)
    assert found >= 30
