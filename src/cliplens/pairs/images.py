"""Open the image of a pair, or return its caption; raise an error with the reason if it cannot be used."""

from PIL import Image

from cliplens.errors import BadPairError
from cliplens.records import Pair


def open_image(pair: Pair) -> Image.Image:
    """Return the image of a pair, decoded to the last byte, as RGB (see `cliplens.pictures.open_picture`).

    Raises:
        BadPairError: the pair has no image, or one that cannot be opened.
    """
    image = pair.image
    if image is None:
        raise BadPairError(pair.id, "no image")
    return image


def caption_of(pair: Pair) -> str:
    """Return the caption of a pair.

    Raises:
        BadPairError: there is none, it holds nothing but white space, or it is not text.
    """
    if pair.caption_problem is not None:
        raise BadPairError(pair.id, pair.caption_problem)
    if pair.caption is None:
        raise BadPairError(pair.id, "no caption")
    if not pair.caption.strip():
        raise BadPairError(pair.id, "empty caption")
    return pair.caption
