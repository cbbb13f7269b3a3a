"""Writes the table of sites in docs/steering.md: what an edit at each site of each class does.

PYTHONPATH=tests python -m support.steering_table
"""

from pathlib import Path

from support.steerable import ALL, row_of

PAGE = Path(__file__).parents[2] / "docs" / "steering.md"
START, END = "<!-- sites: written by tests/support/steering_table.py -->", "<!-- end of sites -->"
HEAD = (
    "| class | part | `blocks.L.hook_*` | `hook_pooled` | `hook_projected`, `hook_embedding` |\n|---|---|---|---|---|"
)


def table_in(page: str) -> str:
    """Return the table between the two marks of a page."""
    return page.partition(START)[2].partition(END)[0].strip()


def main() -> None:
    """Try every site and write the table."""
    rows = [row for one in ALL for row in row_of(one)]
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(START)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{START}\n\n{HEAD}\n" + "\n".join(rows) + f"\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
