"""Read CC3M-style TSV files: caption and URL, no header, with the images downloaded into a local folder."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from cliplens.errors import PairsError
from cliplens.pairs.cells import captions_of
from cliplens.pairs.columns import PairsBuilder
from cliplens.pairs.dialect import Dialect, lines_of
from cliplens.pairs.encoding import encoding_of
from cliplens.pairs.folder import IMAGE_SUFFIXES
from cliplens.pairs.pairs import Pairs

_TRIED = 200
_NAMES: dict[str, Callable[[int, str], str]] = {
    "the URL's last part": lambda row, url: PurePosixPath(urlsplit(url).path).stem,
    "the row": lambda row, url: str(row),
    "the row in 8 digits": lambda row, url: f"{row:08d}",
    "the row in 9 digits": lambda row, url: f"{row:09d}",
    "the URL's md5": lambda row, url: hashlib.md5(_bytes(url), usedforsecurity=False).hexdigest(),
    "the URL's sha1": lambda row, url: hashlib.sha1(_bytes(url), usedforsecurity=False).hexdigest(),
}
"""How downloaders name files; rows count from 0."""


def is_headless(path: Path) -> bool:
    """Return whether a TSV begins with a caption and a URL instead of the names of columns."""
    first = next(_lines(path), "").rstrip("\r\n").split("\t")
    return len(first) == 2 and first[1].startswith(("http://", "https://"))


def read_cc3m(path: Path, root: Path) -> Pairs:
    """Return the pairs of such a file. Nothing is downloaded: rows without an image file are bad pairs.

    Where many are missing, select the rows first, or allow more bad pairs (`--max-bad`).

    Raises:
        PairsError: no file in the folder is named in a way that fits the rows.
    """
    files = {f.stem: f.relative_to(root).as_posix() for f in _images(root)}
    fits = _naming(((row, cells[1]) for row, cells in _rows(path) if len(cells) == 2), files)
    if fits is None:
        raise PairsError(
            expected=f"images in {root} named by {', '.join(_NAMES)}",
            found=f"{len(files)} images that fit none of the first {_TRIED} rows",
            fix="name the folder with image_root (--image-root), or write a table with a column of file names",
        )
    made = PairsBuilder(path.stem, root, captions=True)
    row = -1
    for row, cells in _rows(path):
        if len(cells) != 2:
            made.add_bad(row, f"{len(cells)} cells where a row has a caption and a URL")
            continue
        stem = fits(row, cells[1])
        for caption in captions_of(cells[0]):
            made.add(row, stem, files.get(stem, stem), caption)
    return made.done(n_rows=row + 1, notes=[f"{path.name}: captions and URLs without a header line, tab-delimited"])


def _lines(path: Path) -> Iterator[str]:
    return lines_of(path, Dialect("\t", "none", encoding_of(path)))


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    lines = (line for line in _lines(path) if line.strip())
    yield from enumerate(line.rstrip("\r\n").split("\t") for line in lines)


def _images(root: Path) -> Iterator[Path]:
    return (f for f in sorted(root.rglob("*")) if f.suffix.lower() in IMAGE_SUFFIXES)


def _naming(urls: Iterable[tuple[int, str]], files: dict[str, str]) -> Callable[[int, str], str] | None:
    tried = list(islice(urls, _TRIED))
    hits = {how: sum(_named(name, row, url) in files for row, url in tried) for how, name in _NAMES.items()}
    best = max(hits, key=lambda how: hits[how])
    return (lambda row, url: _named(_NAMES[best], row, url)) if hits[best] else None


def _named(name: Callable[[int, str], str], row: int, url: str) -> str:
    try:
        return name(row, url)
    except ValueError:  # a URL that cannot be parsed
        return str(row)


def _bytes(url: str) -> bytes:
    return url.encode("utf-8", "surrogateescape")
