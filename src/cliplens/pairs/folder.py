"""Read a folder of images, however deep, each with its caption in a .txt file of the same name beside it."""

import os
from collections import Counter
from pathlib import Path

from cliplens.errors import PairsError
from cliplens.faults import size
from cliplens.pairs.cells import BadCaption, Caption, captions_of
from cliplens.pairs.columns import PairsBuilder
from cliplens.pairs.pairs import Pairs
from cliplens.sites import Modalities

IMAGE_SUFFIXES = frozenset(
    f".{ending}"
    for ending in (
        *("png", "apng", "jpg", "jpeg", "jpe", "jfif", "webp", "avif", "heic", "heif", "gif", "bmp", "dib", "tif"),
        *("tiff", "ppm", "pgm", "pbm", "pnm", "jp2", "j2k", "jpx", "tga", "ico", "qoi", "dds", "pcx", "psd", "sgi"),
    )
)

_LONGEST = 1_000_000
"""Bytes of the largest caption file that is read."""


def read_folder(folder: Path, modalities: Modalities) -> Pairs:
    """Return the pairs of a folder, in the order of their relative paths, which are their ids.

    Raises:
        PairsError: the folder cannot be read, or captions are needed and no image has one.
    """
    files, unreadable = _files(folder)
    names = sorted(name for name in files if Path(name).suffix.lower() in IMAGE_SUFFIXES)
    captions: list[Caption] = []
    made = PairsBuilder(folder.name, folder, captions=modalities != "image")
    for row, name in enumerate(names):
        caption = _caption(folder, Path(name).with_suffix(".txt")) if modalities != "image" else None
        captions.append(caption)
        made.add(row, name, name, caption, name)
    for row, name in enumerate(unreadable, start=len(names)):
        made.add_bad(row, "a folder that cannot be read", name)
    if names and modalities != "image" and all(caption is None for caption in captions):
        raise PairsError(
            expected=f"a .txt file with the caption beside each image in {folder}",
            found=f"{len(names)} images and no .txt file",
            fix="write the captions, or read images only with --tower vision (in Python modalities='image')",
        )
    return made.done(n_rows=len(names) + len(unreadable), unit="image", notes=_notes(folder, files, names))


def _files(folder: Path) -> tuple[list[str], list[str]]:
    """Return the relative names of all files, and of the folders that cannot be read."""
    files, unreadable = [], []

    def failed(error: OSError) -> None:
        unreadable.append(os.path.relpath(error.filename or folder, folder))

    for where, _, names in os.walk(folder, onerror=failed):
        below = Path(where).relative_to(folder)
        files += [(below / name).as_posix() for name in names]
    if not files and unreadable == ["."]:
        raise PairsError(
            expected=f"a folder that can be read at {folder}", found="no permission", fix="change its permissions"
        )
    return files, unreadable


def _caption(folder: Path, name: Path) -> Caption:
    path = folder / name
    try:
        if not path.is_file():
            return None
        if path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
            return BadCaption("a caption file that links out of the folder")
        if path.stat().st_size > _LONGEST:
            return BadCaption(f"a caption file of more than {size(_LONGEST)}")
        text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except (OSError, ValueError) as error:
        return BadCaption(f"a caption file that cannot be read: {getattr(error, 'strerror', None) or error}")
    return captions_of(" ".join(text.split()))[0]


def _notes(folder: Path, files: list[str], names: list[str]) -> list[str]:
    known = {Path(name).with_suffix("").as_posix() for name in names}
    endings: Counter[str] = Counter()
    for name in files:
        suffix = Path(name).suffix.lower()
        alone = suffix == ".txt" and Path(name).with_suffix("").as_posix() not in known
        if alone or (suffix != ".txt" and suffix not in IMAGE_SUFFIXES):
            endings[suffix or "no ending"] += 1
    if not endings:
        return []
    listed = ", ".join(f"{count} of {ending}" for ending, count in endings.most_common(6))
    return [f"{folder.name}: {sum(endings.values())} files without an image were passed over ({listed})"]
