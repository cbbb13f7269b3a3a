"""Read a folder of images, however deep, each with its caption in a .txt file of the same name beside it."""

import os
from collections import Counter
from pathlib import Path

from cliplens.errors import PairsError
from cliplens.faults import size
from cliplens.pairs.cells import BadCaption, Caption, captions_of
from cliplens.pairs.columns import PairsBuilder
from cliplens.pairs.encoding import decoded
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

    Files that systems leave behind (`._a.png`, `__MACOSX/`) and folders that are links are passed over; `notes` say so.

    Raises:
        PairsError: the folder cannot be read, or captions are needed and no image has one.
    """
    files, unreadable, links = _files(folder)
    names = sorted(name for name in files if Path(name).suffix.lower() in IMAGE_SUFFIXES and not is_hidden(name))
    texts = {name.casefold(): name for name in sorted(files) if name.lower().endswith(".txt")}
    texts |= {name: name for name in files}
    captions: list[Caption] = []
    made = PairsBuilder(folder.name, folder, captions=modalities != "image")
    for row, name in enumerate(names):
        beside = Path(name).with_suffix(".txt").as_posix()
        found = texts.get(beside) or texts.get(beside.casefold(), beside)
        caption = _caption(folder, Path(found)) if modalities != "image" else None
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
    return made.done(n_rows=len(names) + len(unreadable), unit="image", notes=_notes(folder, files, names, links))


def is_hidden(name: str) -> bool:
    """Return whether a file is one that macOS leaves beside the real ones: `._a.png`, `.DS_Store`, `__MACOSX/`."""
    *above, last = Path(name).parts or ("",)
    return last.startswith("._") or last == ".DS_Store" or "__MACOSX" in above


def _files(folder: Path) -> tuple[list[str], list[str], list[str]]:
    """Relative names of all files, of the folders that cannot be read, and of folders that are links."""
    files, unreadable, links = [], [], []

    def failed(error: OSError) -> None:
        unreadable.append(os.path.relpath(error.filename or folder, folder))

    for where, folders, names in os.walk(folder, onerror=failed):
        below = Path(where).relative_to(folder)
        links += [(below / name).as_posix() for name in folders if (Path(where) / name).is_symlink()]
        files += [(below / name).as_posix() for name in names]
    if not files and unreadable == ["."]:
        raise PairsError(
            expected=f"a folder that can be read at {folder}", found="no permission", fix="change its permissions"
        )
    return files, unreadable, links


def _caption(folder: Path, name: Path) -> Caption:
    path = folder / name
    try:
        if not path.is_file():
            return None
        if path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
            return BadCaption("a caption file that links out of the folder")
        if path.stat().st_size > _LONGEST:
            return BadCaption(f"a caption file of more than {size(_LONGEST)}")
        text = decoded(path.read_bytes())
    except (OSError, ValueError) as error:
        return BadCaption(f"a caption file that cannot be read: {getattr(error, 'strerror', None) or error}")
    return captions_of(" ".join(text.split()))[0]


def _notes(folder: Path, files: list[str], names: list[str], links: list[str]) -> list[str]:
    notes = [f"{folder.name}: {len(links)} linked folders were not entered: {', '.join(links[:5])}"] if links else []
    known = {Path(name).with_suffix("").as_posix().casefold() for name in names}
    endings: Counter[str] = Counter()
    for name in files:
        suffix = Path(name).suffix.lower()
        alone = suffix == ".txt" and Path(name).with_suffix("").as_posix().casefold() not in known
        if alone or is_hidden(name) or (suffix != ".txt" and suffix not in IMAGE_SUFFIXES):
            endings[suffix or "no ending"] += 1
    if not endings:
        return notes
    listed = ", ".join(f"{count} of {ending}" for ending, count in endings.most_common(6))
    return [*notes, f"{folder.name}: {sum(endings.values())} files without an image were passed over ({listed})"]
