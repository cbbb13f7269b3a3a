"""Strips of pictures for the report: clean, attacked, and the difference amplified."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from cliplens.pages import png_uri
from cliplens_plugins.robustness.pixels import Pixels, picture_of

_SIDE = 120
_GAP = 4


def attack_strip(clean: Pixels, attacked: Pixels, eps: float) -> str:
    """Return a data URI of one column per picture: clean, attacked, and the difference around grey.

    Args:
        clean: pixels in [0, 1].
        attacked: the same pictures, attacked.
        eps: the largest difference, in [0, 1]; it is drawn as black or white.
    """
    difference = 0.5 + 0.5 * (attacked - clean) / max(eps, 1e-9)
    return strip([[picture_of(p) for p in row] for row in (clean, attacked, difference)])


def strip(rows: Sequence[Sequence[Image.Image]]) -> str:
    """Return a PNG of rows of pictures as a data URI. Small pictures are enlarged without smoothing."""
    wide = max(len(row) for row in rows)
    canvas = Image.new("RGB", (wide * (_SIDE + _GAP) - _GAP, len(rows) * (_SIDE + _GAP) - _GAP), "white")
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            canvas.paste(_sized(picture), (x * (_SIDE + _GAP), y * (_SIDE + _GAP)))
    return png_uri(canvas, optimize=True)


def _sized(picture: Image.Image) -> Image.Image:
    how = Image.Resampling.NEAREST if max(picture.size) < _SIDE else Image.Resampling.LANCZOS
    factor = _SIDE / max(picture.size)
    size = tuple(int(v) for v in np.maximum(1, np.round(np.array(picture.size) * factor)))
    found = Image.new("RGB", (_SIDE, _SIDE), "white")
    found.paste(picture.convert("RGB").resize((size[0], size[1]), how))
    return found
