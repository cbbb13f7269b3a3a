"""Read the rows of a delimited text file without losing any.

Quotation marks follow RFC 4180 where they match. A mark that is never closed is taken as part of the text, so that it
cannot swallow the rows after it; a row with too many or too few cells is returned as a bad row.
"""

import re
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from cliplens.errors import PairsError

Quoting = Literal["auto", "minimal", "none"]
DELIMITERS = {",": "comma", "\t": "tab", ";": "semicolon", "|": "bar"}
_NAMED = {"comma": ",", "tab": "\t", "\\t": "\t", "semicolon": ";", "bar": "|", "pipe": "|"}
_MOST_LINES = 500
"""Longest quoted cell, in lines."""
_LEARNED = 100
_WORD, _NUMBER = re.compile(r"[^\W\d_]+"), re.compile(r"\d+")
_SUFFIX = re.compile(r"\.(png|jpe?g|jfif|webp|bmp|gif|tiff?|avif|heic)$", re.IGNORECASE)


@dataclass(frozen=True)
class Dialect:
    """How a text file is divided into cells. `delimiter` is None when a line is one cell."""

    delimiter: str | None
    quoting: Quoting = "auto"
    encoding: str = "utf-8-sig"

    def __str__(self) -> str:
        cells = (
            "one column" if self.delimiter is None else f"{DELIMITERS.get(self.delimiter, self.delimiter)}-delimited"
        )
        quotes = "quotation marks are text" if self.quoting == "none" else "quotation marks enclose cells"
        return f"{cells}, {quotes}"


@dataclass
class Lines:
    """One row: its cells, its first line, and the reason if the cells are unreliable."""

    line: int
    cells: list[str]
    problem: str | None = None


def delimiter_named(given: str | None) -> str | None:
    """Return a delimiter, given as the character itself or by name, such as "tab".

    Raises:
        PairsError: it is neither.
    """
    if given is None:
        return None
    found = _NAMED.get(given.casefold(), given)
    if len(found) != 1 or found in '"\r\n':
        raise PairsError(
            expected="a delimiter of one character, or one of " + ", ".join(_NAMED),
            found=repr(given),
            fix="pass --delimiter tab",
        )
    return found


def encoding_of(path: Path) -> str:
    """Return the encoding of the byte-order mark of a file; UTF-8 without one."""
    with path.open("rb") as file:
        start = file.read(4)
    return "utf-16" if start[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"


def lines_of(path: Path, dialect: Dialect) -> Iterator[str]:
    """Iterate over the lines of a text file; invalid bytes become lone surrogates."""
    errors = "surrogateescape" if dialect.encoding.startswith("utf-8") else "backslashreplace"
    with path.open(encoding=dialect.encoding, errors=errors, newline="") as file:
        yield from file


class Rows:
    """Iterate over the rows of a delimited file, the header left out.

    `stray` counts the rows in which a quotation mark was taken as text because nothing closes it.

    Args:
        path: the file.
        dialect: how it is divided.
        key: index of the column whose values tell rows apart (file names, ids); helps to see that a quotation mark
            swallows rows.
    """

    def __init__(self, path: Path, dialect: Dialect, key: int = 0) -> None:
        self.path, self.dialect, self.key = path, dialect, key
        self.header = header_of(path, dialect)
        self.stray = 0
        self._shapes: Counter[str] = Counter()

    def __iter__(self) -> Iterator[Lines]:
        self.stray, self._shapes = 0, Counter()
        waiting: deque[str] = deque()
        lines = lines_of(self.path, self.dialect)
        number = 0
        skipped = False
        while True:
            line = waiting.popleft() if waiting else next(lines, None)
            if line is None:
                return
            number += 1
            if not line.strip("\r\n\x1a\0 "):
                continue
            if not skipped:
                skipped = True  # the header
                continue
            row, used = self._row(number, line, waiting, lines)
            number += used
            self._learn(row)
            yield row

    def _row(self, number: int, line: str, waiting: deque[str], lines: Iterator[str]) -> tuple[Lines, int]:
        """Read one row; return it with the number of further lines that it spans."""
        if self.dialect.quoting == "none" or '"' not in line:
            return self._checked(number, _split(_bare(line), self.dialect.delimiter)), 0
        begun = _split(_bare(line), self.dialect.delimiter)
        own = _shape(begun[self.key]) if self.key < len(begun) else ""
        text, taken = line, list[str]()
        while True:
            cells = quoted_cells(_bare(text), self.dialect.delimiter)
            if cells is not None:
                for _ in taken:
                    waiting.popleft()
                return self._checked(number, cells), len(taken)
            if is_malformed(_bare(text), self.dialect.delimiter) or len(taken) >= _MOST_LINES:
                break
            if len(taken) == len(waiting):
                following = next(lines, None)
                if following is None:
                    break
                waiting.append(following)
            following = waiting[len(taken)]
            if self._looks_like_a_row(following, own):
                break
            taken.append(following)
            text += following
        return self._as_text(number, line), 0

    def _as_text(self, number: int, line: str) -> Lines:
        self.stray += 1
        row = self._checked(number, _split(_bare(line), self.dialect.delimiter))
        if self.dialect.quoting == "minimal" and row.problem is None:
            row.problem = f"line {number}: a quotation mark that is never closed"
        return row

    def _checked(self, number: int, cells: list[str]) -> Lines:
        width = len(self.header)
        while len(cells) > width and not cells[-1].strip():
            cells.pop()
        if len(cells) == width:
            return Lines(number, cells)
        return Lines(number, cells, f"line {number}: {len(cells)} cells where the header has {width}")

    def _learn(self, row: Lines) -> None:
        if row.problem is None and sum(self._shapes.values()) < _LEARNED:
            self._shapes[_shape(row.cells[self.key])] += 1

    def _looks_like_a_row(self, line: str, own: str) -> bool:
        """Return whether a line within quotation marks has the number of cells and the beginning of a row."""
        width = len(self.header)
        cells = _split(_bare(line), self.dialect.delimiter)
        if width < 2 or len(cells) != width:
            return False
        shape = _shape(cells[self.key])
        return (shape == own or shape in self._shapes) and _tells(shape)


def header_of(path: Path, dialect: Dialect) -> list[str]:
    """Return the names of the columns: the cells of the first line that is not blank."""
    for line in lines_of(path, dialect):
        text = _bare(line)
        if text.strip("\x1a\0 "):
            cells = None if dialect.quoting == "none" else quoted_cells(text, dialect.delimiter)
            return [cell.strip() for cell in cells or _split(text, dialect.delimiter)]
    return []


def detected(path: Path, names: Sequence[str], *, delimiter: str | None, quoting: Quoting) -> Dialect:
    """Return the dialect of a table with a header line.

    The delimiter is the one given; else, of those that yield a column of a usual or given name, the usual one of the
    file's ending, else the one that yields most of them.

    Args:
        path: the file.
        names: names of columns that are looked for.
        delimiter: the delimiter, if it is known.
        quoting: "auto" takes marks that are never closed as text, "minimal" sets such rows aside, "none" takes every
            mark as text.
    """
    dialect = Dialect(delimiter_named(delimiter), quoting, encoding_of(path))
    if dialect.delimiter is not None:
        return dialect
    usual = "\t" if path.suffix.lower() in (".tsv", ".tab") else ","
    wanted = {name.casefold() for name in names}
    best, most = None, (0, 0)
    for candidate in dict.fromkeys([usual, *DELIMITERS]):
        header = header_of(path, replace(dialect, delimiter=candidate))
        hits = sum(name.casefold() in wanted for name in header)
        if len(header) > 1 and (hits, 0) > most:
            best, most = candidate, (hits, 0)
    if best is None and len(header_of(path, replace(dialect, delimiter=usual))) > 1:
        best = usual
    return replace(dialect, delimiter=best)


def quoted_cells(text: str, delimiter: str | None) -> list[str] | None:
    """Return the cells of a row in which quotation marks enclose cells; None when one is unclosed or misplaced.

    >>> quoted_cells('a.png,"a cat, asleep"', ",")
    ['a.png', 'a cat, asleep']
    """
    cells, at = [], 0
    while True:
        if text[at : at + 1] == '"':
            end = _closing(text, at + 1)
            if end < 0:
                return None
            cells.append(text[at + 1 : end].replace('""', '"'))
            if end + 1 == len(text):
                return cells
            if text[end + 1] != delimiter:
                return None
            at = end + 2
            continue
        end = -1 if delimiter is None else text.find(delimiter, at)
        if end < 0:
            return [*cells, text[at:]]
        cells.append(text[at:end])
        at = end + 1


def is_malformed(text: str, delimiter: str | None) -> bool:
    """Return whether no further line can complete the row: a quotation mark closes before the end of its cell."""
    at = 0
    while True:
        if text[at : at + 1] == '"':
            end = _closing(text, at + 1)
            if end < 0:
                return False
            if text[end + 1 : end + 2] != delimiter:
                return end + 1 < len(text)
            at = end + 2
            continue
        end = -1 if delimiter is None else text.find(delimiter, at)
        if end < 0:
            return False
        at = end + 1


def _closing(text: str, at: int) -> int:
    """Return the index of the mark that closes a cell whose text begins at `at`; -1 without one."""
    while True:
        end = text.find('"', at)
        if end < 0 or text[end + 1 : end + 2] != '"':
            return end
        at = end + 2


def _split(text: str, delimiter: str | None) -> list[str]:
    return [text] if delimiter is None else text.split(delimiter)


def _bare(line: str) -> str:
    return line.rstrip("\r\n")


def _shape(cell: str) -> str:
    """Return the shape of a cell, with one letter per word and one digit per number: `a_0.png` for `img_12.png`."""
    suffix = _SUFFIX.search(cell)
    stem = cell[: suffix.start()] if suffix else cell
    return _NUMBER.sub("0", _WORD.sub("a", stem)) + (suffix.group().lower() if suffix else "")


def _tells(shape: str) -> bool:
    """Return whether a shape is that of a file name, an id or a URL, not of words."""
    return "0" in shape or "://" in shape or bool(_SUFFIX.search(shape))
