"""Opening the image of a pair: RGB, all of it read, or a reason why not."""

import io
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from cliplens.errors import PairsError
from cliplens.records import Pair


class BadPairError(PairsError):
    """One pair that cannot be used. `reason` is what quarantine.jsonl says of it."""

    def __init__(self, pair: Pair, reason: str) -> None:
        self.pair, self.reason = pair, reason
        super().__init__(expected=f"an image and a caption for pair {pair.id!r}", found=reason, fix="mend or remove it")


def open_image(pair: Pair) -> Image.Image:
    """The image of a pair, decoded to the last byte, as RGB (alpha is dropped, as open_clip does).

    Raises:
        BadPairError: no image, no such file, or bytes that are not a whole image.
    """
    image = pair.image
    if image is None:
        raise BadPairError(pair, "no image")
    if isinstance(image, Image.Image):
        return image.convert("RGB")
    if isinstance(image, Path) and not image.is_file():
        raise BadPairError(pair, "missing file")
    try:
        with Image.open(io.BytesIO(image) if isinstance(image, bytes) else image) as opened:
            opened.load()
            # A palette with alpha goes over RGBA: the same pixels, without Pillow's warning.
            return (opened.convert("RGBA") if opened.mode == "P" else opened).convert("RGB")
    except UnidentifiedImageError as error:
        raise BadPairError(pair, "unreadable image: not an image Pillow knows") from error
    except Exception as error:
        # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error and more on damaged files.
        raise BadPairError(pair, f"unreadable image: {error}") from error


def caption_of(pair: Pair) -> str:
    """The caption of a pair.

    Raises:
        BadPairError: there is none, or nothing but white space.
    """
    if pair.caption is None:
        raise BadPairError(pair, "no caption")
    if not pair.caption.strip():
        raise BadPairError(pair, "empty caption")
    return pair.caption
