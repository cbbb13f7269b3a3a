"""A folder of images, however deep, each with its caption in a .txt file of the same name beside it."""

from pathlib import Path

from cliplens.errors import PairsError
from cliplens.pairs.pairs import Pairs
from cliplens.pairs.strings import Files, Strings
from cliplens.sites import Modalities

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"})


def read_folder(folder: Path, modalities: Modalities) -> Pairs:
    """Pairs of a folder, in the order of their relative paths, which are their ids.

    Raises:
        PairsError: captions are needed and no image has one.
    """
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    ids = Strings.of(names)
    images = Files(folder, ids)
    if modalities == "image":
        return Pairs(ids, images, None, name=folder.name)
    captions = Strings.of(_caption((folder / name).with_suffix(".txt")) for name in names)
    if names and all(c is None for c in captions):
        raise PairsError(
            expected=f"a .txt file with the caption beside each image in {folder}",
            found=f"{len(images)} images and no .txt file",
            fix="write the captions, or read images only with --tower vision (in Python modalities='image')",
        )
    return Pairs(ids, images, captions, name=folder.name)


def _caption(path: Path) -> str | None:
    if not path.is_file():
        return None
    return " ".join(path.read_text(encoding="utf-8", errors="replace").split())
