"""The figures of docs/robustness.md are those that the benchmark stored."""

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "robustness.md").read_text()
STORED = (ROOT / "benchmarks" / "results" / "robustness.json").read_text()
INTERVAL = re.compile(r"-?\d\.\d{3} \(-?\d\.\d{3} to -?\d\.\d{3}\)")


def test_every_figure_with_an_interval_is_stored() -> None:
    written = INTERVAL.findall(PAGE)
    assert len(written) > 100
    assert [figure for figure in written if figure not in STORED] == []


def test_every_figure_of_the_findings_is_stored() -> None:
    (findings,) = re.findall(r"## What was found here\n(.*?)\n\*\*Zero-shot accuracy", PAGE, re.DOTALL)
    known = {f"{value:.3f}" for value in map(float, re.findall(r"(?<![\d.])-?\d+\.\d+", STORED))}
    assert [figure for figure in re.findall(r"(?<![\d.])-?\d\.\d{3}", findings) if figure not in known] == []


def test_the_tables_of_the_page_are_rows_of_the_benchmark() -> None:
    tables = json.loads(STORED)["tables"]
    assert sum(len(table["rows"]) for table in tables) > 100
