"""Read labelled pictures from a folder with one subfolder per class, the layout of most image data sets."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from cliplens.errors import InputError
from cliplens.pairs import IMAGE_SUFFIXES


@dataclass(frozen=True)
class Labelled:
    """Pictures with their classes."""

    paths: tuple[Path, ...]
    labels: Int64[np.ndarray, " picture"]
    classes: tuple[str, ...]


def read_class_folders(folder: Path | str, *, names: Sequence[str] | None = None) -> Labelled:
    """Return the pictures of a folder that has one subfolder per class, in the order of their paths.

    The name of a subfolder is the name of its class, with `_` replaced by a space. Hidden files, and files of
    other types, are skipped.

    Args:
        folder: the folder.
        names: the classes to read, by subfolder; None reads all.

    Raises:
        InputError: the folder is missing, or fewer than two subfolders contain pictures.
    """
    root = Path(folder)
    if not root.is_dir():
        raise InputError(
            expected="a folder with one subfolder of pictures per class",
            found=f"no folder {root}",
            fix="pass the path of such a folder",
        )
    wanted = None if names is None else set(names)
    found: dict[str, list[Path]] = {}
    for below in sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")):
        pictures = [p for p in sorted(below.rglob("*")) if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file()]
        if pictures and (wanted is None or below.name in wanted):
            found[below.name] = pictures
    if len(found) < 2:
        raise InputError(
            expected=f"at least two subfolders with pictures in {root}",
            found=f"{len(found)}",
            fix="put the pictures of each class into a subfolder of its name",
        )
    labels = np.repeat(np.arange(len(found)), [len(pictures) for pictures in found.values()])
    paths = tuple(path for pictures in found.values() for path in pictures)
    return Labelled(paths, labels.astype(np.int64), tuple(name.replace("_", " ") for name in found))
