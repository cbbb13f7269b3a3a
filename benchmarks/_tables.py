"""Write tables of the stored results into the pages that show them.

    python benchmarks/_tables.py            # every page with a marked table

A table stands below a line `<!-- results: FILE: TITLE -->`: the name of a file in results/ without its ending, and the
beginning of the title of one of its tables. `tests/test_figures.py` compares the pages with what this writes.
"""

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
MARKED = re.compile(r"(<!-- results: (?P<file>[\w-]+): (?P<title>[^>]+?) -->\n)(?:\|.*\n)*")


def main() -> None:
    """Write every page anew whose tables differ."""
    for path in pages():
        before = path.read_text(encoding="utf-8")
        if (after := filled(before)) != before:
            path.write_text(after, encoding="utf-8")
            print(path.relative_to(ROOT))


def pages() -> list[Path]:
    """Return the pages with a marked table."""
    found = sorted((ROOT / "docs").rglob("*.md"))
    return [path for path in found if MARKED.search(path.read_text(encoding="utf-8"))]


def filled(text: str) -> str:
    """Return a page with its marked tables as they are stored."""
    return MARKED.sub(lambda found: found[1] + table(found["file"], found["title"]), text)


def table(file: str, title: str) -> str:
    """Return a table of a result file in Markdown."""
    content = json.loads((RESULTS / f"{file}.json").read_text())
    (found,) = (t for t in content["tables"] if t["title"].startswith(title))
    rows = [found["columns"], ["---"] * len(found["columns"]), *([cell(c) for c in row] for row in found["rows"])]
    lines = ("|" + "|".join(row) + "|" if row[0] == "---" else "| " + " | ".join(row) + " |" for row in rows)
    return "\n".join(lines) + "\n"


def cell(value: Any) -> str:
    """Return a cell as it is shown: an estimate with its interval, one digit from 10 on and three below.

    >>> cell({"value": 0.5, "low": 0.25, "high": 0.75}), cell({"value": 0.5, "low": 0.1, "high": 0.75})
    ('0.500 ± 0.250', '0.500 (0.100 to 0.750)')
    >>> cell({"value": 75.25, "low": None, "high": None}), cell(None), cell(12345)
    ('75.2', '-', '12,345')
    """
    if isinstance(value, dict):
        return _estimate(value["value"], value["low"], value["high"])
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return "-" if value is None else f"{value:,d}" if type(value) is int and abs(value) >= 1000 else str(value)


def _estimate(value: float | None, low: float | None, high: float | None) -> str:
    """Return an estimate with half its interval, or with its limits where these are not equally far."""
    if value is None:
        return "-"
    digits = 1 if abs(value) >= 10 else 3
    if low is None or high is None:
        return f"{value:.{digits}f}"
    if abs((high - value) - (value - low)) > 10**-digits:
        return f"{value:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"
    return f"{value:.{digits}f} ± {high - value:.{digits}f}"


if __name__ == "__main__":
    main()
