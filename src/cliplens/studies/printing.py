"""Print the record of a study on the screen: findings first, then its tables."""

import math
from typing import Any

from cliplens.studies.record import Study
from cliplens.terminal import print_table, say


def figure(value: Any) -> str:
    """Return a cell of a table as text.

    >>> figure(0.12345), figure(None), figure(12), figure("ImgD")
    ('0.123', '-', '12', 'ImgD')
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def with_interval(value: float, low: float, high: float) -> str:
    """Return a figure with its interval in one cell.

    >>> with_interval(0.5, 0.25, 0.75)
    '0.500 (0.250 to 0.750)'
    >>> with_interval(0.5, float("nan"), float("nan"))
    '0.500'
    """
    return f"{value:.3f}" if math.isnan(low) else f"{value:.3f} ({low:.3f} to {high:.3f})"


def print_study(study: Study, tables: int = 3) -> None:
    """Print the findings, the first tables and the notes; the report shows every table."""
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False)
    console.print(f"[bold]{escape(study.title)}[/]")
    for finding in study.findings:
        say(console, finding, "-")
    for title, rows in list(study.tables.items())[:tables]:
        if rows:
            console.print()
            heads = list(rows[0])
            cells = [[figure(row.get(head)) for head in heads] for row in rows]
            print_table([str(head) for head in heads], cells, console=console, title=title)
    more = len(study.tables) - tables
    if more > 0:
        console.print(f"{more} more {'tables are' if more > 1 else 'table is'} in the report.")
    for note in study.notes:
        say(console, note, "[yellow]Note[/]")
