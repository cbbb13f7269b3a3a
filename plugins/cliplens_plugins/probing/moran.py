"""Moran's I: measure whether a latent fires on patches that are next to each other.

    I = (N / S) * x' W x / x' x

x are the activations on the N patches of one image, minus their mean. W is 1 for neighbours, diagonal neighbours
included, else 0; S is the sum of W. Moran, Biometrika 37:17 (1950).
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from cliplens.arrays import Array, as_double, like


def morans_i(maps: Array) -> Array:
    """Return Moran's I of each map of activations.

    Args:
        maps: [map, row, column], torch or numpy.

    Returns:
        [map], float64, torch or numpy as `maps`. Near 1 if neighbours are similar; on average -1/(N - 1) for N patches
        in random order; smaller if neighbours alternate. nan if all patches are equal or there is only one.

    Neighbouring patches are correlated in every vision transformer. So compare with an untrained dictionary, and with
    the same patches in random order.

    >>> import numpy as np
    >>> left = np.zeros((1, 4, 4)); left[:, :, :2] = 1
    >>> morans_i(left).round(3)
    array([0.524])
    """
    values = as_double(maps, "maps", ("map", "row", "column"))
    _, height, width = values.shape
    pairs = _neighbours(torch.ones(1, height, width, dtype=torch.float64, device=values.device)).sum()
    centred = values - values.mean((1, 2), keepdim=True)
    squares = centred.square().sum((1, 2))
    together = (centred * _neighbours(centred)).sum((1, 2))
    flat = (values.amax((1, 2)) == values.amin((1, 2))) | (pairs == 0)
    found = height * width * together / (pairs * squares)
    return like(torch.where(flat, torch.nan, found), maps)


def chance_level(patches: int) -> float:
    """Return the expected Moran's I of patches in random order.

    >>> chance_level(5)
    -0.25
    """
    return -1 / (patches - 1)


def _neighbours(maps: Float[Tensor, "map row column"]) -> Float[Tensor, "map row column"]:
    """Return the sum of the up to eight neighbours of each patch."""
    kernel = torch.ones(1, 1, 3, 3, dtype=maps.dtype, device=maps.device)
    kernel[0, 0, 1, 1] = 0
    return F.conv2d(maps[:, None], kernel, padding=1)[:, 0]
