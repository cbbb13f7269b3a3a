"""The figures of docs/advice.md are those that the benchmarks stored."""

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "advice.md").read_text()
KNOWN_ANSWER = (ROOT / "benchmarks" / "results" / "advice.json").read_text()
RESULTS = ("advice", "advice_proof", "advice_proof-own", "advice_proof-scratch")
STORED = "".join((ROOT / "benchmarks" / "results" / f"{name}.json").read_text() for name in RESULTS)


def test_every_row_of_the_known_answer_is_stored() -> None:
    (table,) = (t for t in json.loads(KNOWN_ANSWER)["tables"] if t["title"].startswith("AUROC of finding"))
    for row in table["rows"]:
        assert "| " + " | ".join(map(str, row)) + " |" in PAGE


def test_every_figure_of_the_findings_is_stored() -> None:
    (findings,) = re.findall(r"## What was found here\n(.*?)\n## Lists", PAGE, re.DOTALL)
    findings = re.sub(r"<!-- results: .* -->\n(\|.*\n)+", "", findings)  # another test compares these tables
    known = {f"{value:.3f}" for value in map(float, re.findall(r"(?<![\d.])-?\d+\.\d+", STORED))}
    written = re.findall(r"(?<![\d.])\d\.\d{3}", findings)
    assert len(written) >= 15
    assert [figure for figure in written if figure not in known] == []
