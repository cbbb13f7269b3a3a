"""Read the colour of a picture without a network: the palette colour nearest to its figure."""

import numpy as np
from jaxtyping import Float
from PIL import Image

from cliplens.world import FACTORS
from cliplens.world.render import COLOURS

_SHARE = 0.03
"""Share of pixels taken for the figure: those furthest from the background."""


def nearest_colour(picture: Image.Image) -> int:
    """Return the index in `FACTORS["colour"].values` of the palette's colour nearest to the figure."""
    colours = np.array([COLOURS[name] for name in FACTORS["colour"].values])
    return int(np.square(colours - _figure(picture)).sum(-1).argmin())


def _figure(picture: Image.Image) -> Float[np.ndarray, " channel"]:
    """Return the median colour of the pixels furthest from the background, which is the picture's median."""
    pixels = np.asarray(picture.convert("RGB"), dtype=float).reshape(-1, 3) / 255
    far = np.abs(pixels - np.median(pixels, axis=0)).sum(-1)
    figure: Float[np.ndarray, " channel"] = np.median(pixels[far >= np.quantile(far, 1 - _SHARE)], axis=0)
    return figure
