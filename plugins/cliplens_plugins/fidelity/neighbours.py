"""Find the nearest neighbours of each latent by the cosine of decoder rows."""

import numpy as np
from jaxtyping import Float, Int64
from torch import Tensor

from cliplens.arrays import nearest_rows

NEIGHBOURS = 5


def neighbours(
    decoder: Float[Tensor, "d_sae d_in"], count: int = NEIGHBOURS
) -> tuple[Int64[np.ndarray, "d_sae neighbour"], Float[np.ndarray, "d_sae neighbour"]]:
    """Return, for each latent, the latents with the most similar decoder rows, nearest first, and their cosines.

    Cosines are in [-1, 1]. If there are fewer than `count` other latents, there are fewer columns.
    """
    return nearest_rows(decoder, count)
