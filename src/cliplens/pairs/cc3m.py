"""CC3M-style TSV: caption and URL, no header, with the images downloaded into a local folder."""

import csv
import hashlib
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from cliplens.errors import PairsError
from cliplens.pairs.folder import IMAGE_SUFFIXES
from cliplens.pairs.pairs import Pairs
from cliplens.pairs.strings import Files, Growing

_TRIED = 200
_NAMES: dict[str, Callable[[int, str], str]] = {
    "the URL's last part": lambda row, url: PurePosixPath(urlsplit(url).path).stem,
    "the row": lambda row, url: str(row),
    "the row in 8 digits": lambda row, url: f"{row:08d}",
    "the row in 9 digits": lambda row, url: f"{row:09d}",
    "the URL's md5": lambda row, url: hashlib.md5(url.encode(), usedforsecurity=False).hexdigest(),
    "the URL's sha1": lambda row, url: hashlib.sha1(url.encode(), usedforsecurity=False).hexdigest(),
}
"""How downloaders name files; rows count from 0."""


def is_headless(path: Path) -> bool:
    """Whether a TSV begins with a caption and a URL instead of the names of columns."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        first = next(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE), [])
    return len(first) == 2 and first[1].startswith(("http://", "https://"))


def read_cc3m(path: Path, root: Path) -> Pairs:
    """Pairs of such a file. Nothing is downloaded: rows whose image is not there show as bad pairs when they are used,
    so select the rows first where many are missing (`--max-bad` decides how many may be).

    Raises:
        PairsError: no file in the folder is named in a way that fits the rows.
    """
    files = {f.stem: f.relative_to(root).as_posix() for f in _images(root)}
    name = _naming(enumerate(url for _, url in _rows(path)), files)
    if name is None:
        raise PairsError(
            expected=f"images in {root} named by {', '.join(_NAMES)}",
            found=f"{len(files)} images that fit none of the first {_TRIED} rows",
            fix="give the folder with image_root, or write a table with a column of file names",
        )
    names, images, captions = Growing(), Growing(), Growing()
    for row, (caption, url) in enumerate(_rows(path)):
        stem = name(row, url)
        names.append(stem)
        images.append(files.get(stem, stem))
        captions.append(caption)
    return Pairs(names.done(), Files(root, images.done()), captions.done(), name=path.stem)


def _rows(path: Path) -> Iterator[tuple[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        for row in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
            if len(row) == 2:
                yield row[0], row[1]


def _images(root: Path) -> Iterator[Path]:
    return (f for f in sorted(root.rglob("*")) if f.suffix.lower() in IMAGE_SUFFIXES)


def _naming(urls: Iterable[tuple[int, str]], files: dict[str, str]) -> Callable[[int, str], str] | None:
    tried = list(islice(urls, _TRIED))
    hits = {how: sum(name(row, url) in files for row, url in tried) for how, name in _NAMES.items()}
    best = max(hits, key=lambda how: hits[how])
    return _NAMES[best] if hits[best] else None
