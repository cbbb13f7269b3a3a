"""Reading a picture's colour with no network: the colour of the palette that its figure is nearest to."""

import numpy as np
from jaxtyping import Float
from PIL import Image

from cliplens.world import FACTORS

PALETTE = {
    "red": (0.86, 0.12, 0.12),
    "orange": (1.00, 0.53, 0.05),
    "yellow": (1.00, 0.93, 0.20),
    "green": (0.10, 0.58, 0.20),
    "blue": (0.10, 0.28, 0.88),
    "purple": (0.52, 0.16, 0.70),
    "black": (0.05, 0.05, 0.05),
    "white": (1.00, 1.00, 1.00),
}
"""The colours that the world paints with, before light and texture."""
_SHARE = 0.03
"""Share of pixels taken for the figure: those furthest from the background."""


def nearest_colour(picture: Image.Image) -> int:
    """Return the index in `FACTORS["colour"].values` of the palette's colour nearest to the figure."""
    colours = np.array([PALETTE[name] for name in FACTORS["colour"].values])
    return int(np.square(colours - _figure(picture)).sum(-1).argmin())


def _figure(picture: Image.Image) -> Float[np.ndarray, " channel"]:
    """Return the median colour of the pixels furthest from the background, which is the picture's median."""
    pixels = np.asarray(picture.convert("RGB"), dtype=float).reshape(-1, 3) / 255
    far = np.abs(pixels - np.median(pixels, axis=0)).sum(-1)
    figure: Float[np.ndarray, " channel"] = np.median(pixels[far >= np.quantile(far, 1 - _SHARE)], axis=0)
    return figure
