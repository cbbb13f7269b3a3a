"""Print tables and sentences that fit the terminal: no word is broken, and a table that is too wide comes in parts."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

GAP = 2
"""Blanks between two columns."""
_LONGEST = 36
"""Cells with longer words, such as paths, may be broken inside a word."""
_MOST_KEYS = 3
_RANGE = re.compile(r"\(?-?[\d.]+ to -?[\d.]+\)?")
_FIXED = "\N{NO-BREAK SPACE}"


def print_table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], *, console: "Console | None" = None, title: str | None = None
) -> None:
    """Print a table that fits the width of the console; heads and cells are plain text.

    Args:
        heads: the head of each column; empty texts print none.
        rows: the cells of each row, in step.
        console: where to print; None is standard output.
        title: a line above the table.
    """
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False) if console is None else console
    if title is not None:
        console.print(f"[bold]{escape(title)}[/]")
    for n, part in enumerate(fitted(heads, rows, console.width) if heads else []):
        if n:
            console.print()
        console.print(part)


def say(console: "Console", text: str, label: str = "") -> None:
    """Print a sentence: wrapped between words on a terminal, in one line where the output goes to a file or a pipe.

    Args:
        console: where to print.
        text: plain text.
        label: what stands before it; may hold rich's markup.
    """
    from rich.markup import escape

    console.print(f"{label}{' ' if label else ''}{escape(text)}", soft_wrap=not console.is_terminal)


def fitted(heads: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list["Table"]:
    """Return a table of at most `width` columns of text; where its words need more, several, which repeat what names
    their rows.

    >>> [part.row_count for part in fitted(["kind", "share"], [["noun", "0.5"], ["verb", "0.4"]], 80)]
    [2]
    """
    glued = [[_RANGE.sub(lambda found: found[0].replace(" ", _FIXED), cell) for cell in row] for row in rows]
    columns = [[str(head), *(row[n] for row in glued)] for n, head in enumerate(heads)]
    return [_table([columns[n] for n in part], width) for part in _parts(columns, width)]


def _parts(columns: Sequence[Sequence[str]], width: int) -> list[list[int]]:
    """Return the columns of each part: those that name the rows, then as many others as fit."""
    least = [_least(column) for column in columns]
    every = list(range(len(columns)))
    if _total(least) <= width:
        return [every]
    keys = list(range(_keys(columns)))
    parts: list[list[int]] = []
    for n in every[len(keys) :]:
        if parts and _total([least[k] for k in (*parts[-1], n)]) <= width:
            parts[-1].append(n)
        else:
            parts.append([*keys, n])
    return parts or [every]


def _keys(columns: Sequence[Sequence[str]]) -> int:
    """Return how many of the first columns are needed to tell the rows apart."""
    rows = list(zip(*(column[1:] for column in columns), strict=True))
    for count in range(1, min(_MOST_KEYS, len(columns) - 1) + 1):
        if len({row[:count] for row in rows}) == len(rows):
            return count
    return 1


def _table(columns: Sequence[Sequence[str]], width: int) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=any(column[0] for column in columns), pad_edge=False, padding=(0, GAP, 0, 0))
    cells = []
    for column, room in zip(columns, _widths(columns, width), strict=True):
        head, *rest = (_wrapped(cell, room) for cell in column)
        table.add_column(Text(head), no_wrap=True, overflow="ignore", width=room)
        cells.append([Text(cell) for cell in rest])
    for row in zip(*cells, strict=True):
        table.add_row(*row)
    return table


def _widths(columns: Sequence[Sequence[str]], width: int) -> list[int]:
    """Return the width of each column: its longest line if all fit, else its longest word and a part of the rest."""
    most = [max(_length(line) for cell in column for line in cell.split("\n")) for column in columns]
    if _total(most) <= width:
        return most
    least = [_least(column) for column in columns]
    spare, wanted = max(width - _total(least), 0), sum(most) - sum(least)
    widths = [low + (high - low) * spare // max(wanted, 1) for low, high in zip(least, most, strict=True)]
    over = _total(widths) - width
    return widths if over <= 0 else [*widths[:-1], max(widths[-1] - over, _longest_word(columns[-1][0]))]


def _least(column: Sequence[str]) -> int:
    return max(_longest_word(column[0]), *(min(_longest_word(cell), _LONGEST) for cell in column))


def _longest_word(text: str) -> int:
    return max((_length(word) for word in re.split(r"[ \n]", text)), default=0)


def _length(text: str) -> int:
    from rich.cells import cell_len

    return cell_len(text)


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + GAP * (len(widths) - 1)


def _wrapped(text: str, width: int) -> str:
    """Return a text with line breaks between words, or inside words that are longer than a line."""
    lines = [""]
    for n, paragraph in enumerate(text.split("\n")):
        if n:
            lines.append("")
        for word in paragraph.split(" "):
            if lines[-1] and _length(lines[-1]) + 1 + _length(word) > width:
                lines.append("")
            lines[-1] += (" " if lines[-1] else "") + word
            while _length(lines[-1]) > width > 0:
                cut = next(c for c in range(len(lines[-1]), 0, -1) if _length(lines[-1][:c]) <= width or c == 1)
                lines[-1:] = [lines[-1][:cut], lines[-1][cut:]]
    return "\n".join(lines).replace(_FIXED, " ")
