"""Save strips of pictures over doses, and compute two proxies of picture quality."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw

from cliplens.files import atomic_write

_MARGIN, _HEAD, _SMALLEST = 4, 16, 96


def save_strip(
    path: Path, rows: Sequence[Sequence[Image.Image]], heads: Sequence[str], labels: Sequence[str] = ()
) -> None:
    """Write a PNG with one row per sample and one column per dose; small pictures are enlarged pixel by pixel."""
    first = rows[0][0]
    factor = max(1, -(-_SMALLEST // max(first.size)))
    width, height = first.width * factor, first.height * factor
    top = _HEAD if labels else 0
    sheet = Image.new(
        "RGB",
        (len(heads) * (width + _MARGIN) + _MARGIN, _HEAD + len(rows) * (height + top + _MARGIN) + _MARGIN),
        "white",
    )
    draw = ImageDraw.Draw(sheet)
    for column, head in enumerate(heads):
        draw.text((_MARGIN + column * (width + _MARGIN), 2), head, fill="black")
    for row, pictures in enumerate(rows):
        y = _HEAD + row * (height + top + _MARGIN) + _MARGIN
        if labels:
            draw.text((_MARGIN, y), labels[row], fill="black")
        for column, picture in enumerate(pictures):
            large = picture.convert("RGB").resize((width, height), Image.Resampling.NEAREST)
            sheet.paste(large, (_MARGIN + column * (width + _MARGIN), y + top))
    with atomic_write(path) as partial:
        sheet.save(partial, format="PNG")


def sharpness(picture: Image.Image) -> float:
    """Return the variance of the Laplacian of the grey image with values in [0, 1].

    It falls with blur and rises with noise. A proxy of quality (Pech-Pacheco et al., 2000): compare it only with the
    picture at dose 0.
    """
    grey = _grey(picture)
    inner = grey[1:-1, 1:-1]
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * inner
    return float(laplacian.var())


def burnt(picture: Image.Image) -> float:
    """Return the share of saturated colour values (at 0 or 255), in [0, 1]; it rises when a picture is overexposed."""
    values = np.asarray(picture.convert("RGB"))
    return float(np.mean((values == 0) | (values == 255)))


def _grey(picture: Image.Image) -> Float[np.ndarray, "height width"]:
    return np.asarray(picture.convert("L"), dtype=np.float64) / 255.0
