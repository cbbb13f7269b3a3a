"""Read the rows of a delimited text file without losing any.

Quotation marks follow RFC 4180 where they match. A mark that is never closed is taken as part of the text, so that it
cannot swallow the rows after it; a row with too many or too few cells is returned as a bad row.
"""

import re
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Literal

from cliplens.errors import PairsError
from cliplens.pairs.encoding import encoding_of, errors_of
from cliplens.pairs.quotes import is_malformed, quoted_cells

Quoting = Literal["auto", "minimal", "none"]
DELIMITERS = {",": "comma", "\t": "tab", ";": "semicolon", "|": "bar"}
_NAMED = {"comma": ",", "tab": "\t", "\\t": "\t", "semicolon": ";", "bar": "|", "pipe": "|"}
_MOST_LINES = 500
"""Longest quoted cell, in lines."""
_LEARNED = 100
_WORD, _NUMBER = re.compile(r"[^\W\d_]+"), re.compile(r"\d+")
_SEP = re.compile('"?sep=(.)"?', re.IGNORECASE)
_SUFFIX = re.compile(r"\.(png|jpe?g|jfif|webp|bmp|gif|tiff?|avif|heic)$", re.IGNORECASE)


@dataclass(frozen=True)
class Dialect:
    """How a text file is divided into cells. `delimiter` is None when a line is one cell."""

    delimiter: str | None
    quoting: Quoting = "auto"
    encoding: str = "utf-8-sig"
    spaced: bool = False
    """Whether cells are divided by the delimiter and spaces, as in `a.png, "a cat"`."""

    def __str__(self) -> str:
        cells = (
            "one column" if self.delimiter is None else f"{DELIMITERS.get(self.delimiter, self.delimiter)}-delimited"
        )
        spaces = " (spaces after it left out)" if self.spaced else ""
        quotes = "quotation marks are text" if self.quoting == "none" else "quotation marks enclose cells"
        return f"{cells}{spaces}, {quotes}"

    def split(self, text: str) -> list[str]:
        """Return the cells of a row in which quotation marks are text."""
        cells = [text] if self.delimiter is None else text.split(self.delimiter)
        return [cell.lstrip(" ") for cell in cells] if self.spaced else cells


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


def lines_of(path: Path, dialect: Dialect) -> Iterator[str]:
    """Iterate over the lines of a text file; bytes that are no text become lone surrogates.

    A first line `sep=;`, which spreadsheets write to name the delimiter, is given as a blank line.
    """
    with path.open(encoding=dialect.encoding, errors=errors_of(dialect.encoding), newline="") as file:
        first = next(file, "")
        yield "\n" if _SEP.fullmatch(_bare(first)) else first
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
            return self._checked(number, self.dialect.split(_bare(line))), 0
        begun = self.dialect.split(_bare(line))
        own = _shape(begun[self.key]) if self.key < len(begun) else ""
        text, taken = line, list[str]()
        while True:
            cells = quoted_cells(_bare(text), self.dialect.delimiter, spaced=self.dialect.spaced)
            if cells is not None:
                for _ in taken:
                    waiting.popleft()
                return self._checked(number, cells), len(taken)
            if (
                is_malformed(_bare(text), self.dialect.delimiter, spaced=self.dialect.spaced)
                or len(taken) >= _MOST_LINES
            ):
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
        return self._escaped(number, line) or self._as_text(number, line), 0

    def _escaped(self, number: int, line: str) -> Lines | None:
        r"""The row with `\"` read as a quotation mark within a cell, as some programs write it."""
        if '\\"' not in line:
            return None
        doubled = _bare(line).replace('\\"', '""')
        cells = quoted_cells(doubled, self.dialect.delimiter, spaced=self.dialect.spaced)
        return None if cells is None or len(cells) != len(self.header) else self._checked(number, cells)

    def _as_text(self, number: int, line: str) -> Lines:
        self.stray += 1
        row = self._checked(number, self.dialect.split(_bare(line)))
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
        cells = self.dialect.split(_bare(line))
        if width < 2 or len(cells) != width:
            return False
        shape = _shape(cells[self.key])
        return (shape == own or shape in self._shapes) and _tells(shape)


def header_of(path: Path, dialect: Dialect) -> list[str]:
    """Return the names of the columns: the cells of the first line that is not blank."""
    for line in lines_of(path, dialect):
        text = _bare(line)
        if text.strip("\x1a\0 "):
            quoted = dialect.quoting != "none"
            cells = quoted_cells(text, dialect.delimiter, spaced=dialect.spaced) if quoted else None
            return [cell.strip() for cell in cells or dialect.split(text)]
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
    encoding = encoding_of(path)
    dialect = Dialect(delimiter_named(delimiter) or _named_by(path, encoding), quoting, encoding)
    if dialect.delimiter is not None:
        return _spaced(path, dialect)
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
    return _spaced(path, replace(dialect, delimiter=best))


def _named_by(path: Path, encoding: str) -> str | None:
    """The delimiter a first line `sep=;` names."""
    with path.open(encoding=encoding, errors="replace", newline="") as file:
        found = _SEP.fullmatch(_bare(file.readline(16)))
    return None if found is None else found[1]


def _spaced(path: Path, dialect: Dialect) -> Dialect:
    """The dialect, `spaced` where a space follows each delimiter of the header, or goes before each quotation mark."""
    if dialect.delimiter in (None, " "):
        return dialect
    lines = (_bare(line) for line in lines_of(path, dialect))
    read = [line for line in islice(lines, _LEARNED) if line.strip("\x1a\0 ")]
    if not read:
        return dialect
    header = read[0].count(str(dialect.delimiter))
    all_spaced = header > 0 and read[0].count(f"{dialect.delimiter} ") == header
    enclosed = dialect.quoting != "none" and any(f'{dialect.delimiter} "' in line for line in read)
    if enclosed and not any(f'{dialect.delimiter}"' in line for line in read):
        all_spaced = True
    return replace(dialect, spaced=all_spaced)


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
