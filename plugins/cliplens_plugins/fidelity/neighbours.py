"""The nearest latents of each latent, by the cosine of their decoder rows."""

import numpy as np
from jaxtyping import Float, Int64
from torch import Tensor

from cliplens.arrays import nearest_rows

NEIGHBOURS = 5


def neighbours(
    decoder: Float[Tensor, "d_sae d_in"], count: int = NEIGHBOURS
) -> tuple[Int64[np.ndarray, "d_sae neighbour"], Float[np.ndarray, "d_sae neighbour"]]:
    """Return the latents with the nearest decoder rows of each latent, nearest first, and the cosines, in [-1, 1].

    Fewer than `count` where there are fewer other latents.
    """
    return nearest_rows(decoder, count)
