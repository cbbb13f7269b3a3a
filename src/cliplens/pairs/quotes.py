"""Divide a row in which quotation marks enclose cells, as RFC 4180 says."""


def quoted_cells(text: str, delimiter: str | None, *, spaced: bool = False) -> list[str] | None:
    """Return the cells of a row in which quotation marks enclose cells; None when one is unclosed or misplaced.

    >>> quoted_cells('a.png,"a cat, asleep"', ",")
    ['a.png', 'a cat, asleep']
    """
    cells, at = [], 0
    while True:
        at = _begins(text, at) if spaced else at
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


def is_malformed(text: str, delimiter: str | None, *, spaced: bool = False) -> bool:
    """Return whether no further line can complete the row: a quotation mark closes before the end of its cell."""
    at = 0
    while True:
        at = _begins(text, at) if spaced else at
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


def _begins(text: str, at: int) -> int:
    """Index of the first character from `at` that is no space."""
    return at + len(text[at:]) - len(text[at:].lstrip(" "))
