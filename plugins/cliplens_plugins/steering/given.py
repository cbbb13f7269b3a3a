"""Open the pictures that a request names, as a run opens those of its pairs."""

from pathlib import Path

from PIL import Image

from cliplens.errors import BadPictureError, InputError
from cliplens.pairs import IMAGE_SUFFIXES
from cliplens.pictures import AS_SEEN, DROP, PictureOptions, open_picture


def picture_at(path: str | Path, *, mask: bool = False) -> Image.Image:
    """Return a picture file as RGB: upright, transparent pixels white (of a mask: as they are stored).

    Raises:
        InputError: there is no such file, or it is no whole picture.
    """
    try:
        return open_picture(Path(path), PictureOptions(background=DROP) if mask else AS_SEEN)
    except BadPictureError as error:
        raise InputError(
            expected="a picture that can be opened", found=f"{path}: {error.reason}", fix="check the path"
        ) from error


def reference_of(given: str) -> Image.Image | str:
    """Return the reference picture, or the caption.

    Raises:
        InputError: it is empty, or ends like a picture file and there is none, or the file is no whole picture.

    >>> reference_of("a red ring")
    'a red ring'
    """
    if not given.strip():
        raise InputError(
            expected="a picture file, or a caption, for --reference",
            found=f"{given!r}",
            fix="pass for example --reference 'a blue circle'",
        )
    ends_like_a_picture = Path(given).suffix.lower() in IMAGE_SUFFIXES
    there = not is_caption(given)
    if not there and ends_like_a_picture:
        raise InputError(
            expected="a picture file, or a caption, for --reference",
            found=f"no file {given}",
            fix="check the path; a caption must not end like the name of a picture",
        )
    return picture_at(given) if there else given


def is_caption(given: str) -> bool:
    """Return whether a reference is a caption, because it names no file."""
    try:
        return not Path(given).is_file()
    except (OSError, ValueError):  # too long for a file name
        return True
