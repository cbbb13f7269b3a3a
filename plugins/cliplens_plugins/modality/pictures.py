"""Compute sums over pictures for each latent, for data in which several pairs show the same picture.

Five captions of one picture are not five independent pairs; an interval that counts them as such is too narrow. The
interval and the test of MDS therefore use sums over pictures c, with n_c firing pairs and D_c the sum of their
d = ratio - 1/2:

    pictures   number of pictures on which the latent fires
    n2, nd, d2 sum of n_c^2, of n_c D_c, of D_c^2

The pairs of a picture may come in different batches, so the sums are taken over a draw of whole pictures (`PairsDraw`):
all pictures if their codes fit into its budget. Otherwise the sums of the draw are scaled up to all firing pairs.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.sparse import csr_array

from cliplens.tally import Sums
from cliplens_plugins.modality.draw import PairsDraw

PerLatent = Float[np.ndarray, " d_sae"]


@dataclass(frozen=True)
class PictureSums:
    """Sums over pictures of each latent. If every picture has one pair, they equal the sums over pairs."""

    pictures: PerLatent
    n2: PerLatent
    nd: PerLatent
    d2: PerLatent

    @property
    def repeated(self) -> np.ndarray:
        """Which latents fire on several pairs of the same picture."""
        repeated: np.ndarray = self.n2 > self.pictures
        return repeated


def picture_sums(sums: Sums, draw: PairsDraw) -> PictureSums:
    """Return the sums over pictures of every latent, from the sums over all pairs and a draw of them."""
    n, d1, d2 = (sums[name].double().cpu().numpy() for name in ("any", "d1", "d2"))
    alone = PictureSums(n, n, d1, d2)
    _, picture = np.unique(draw.ranks, return_inverse=True)
    if not len(picture) or picture.max() + 1 == len(picture):
        return alone
    drawn, fires = _ratios(draw)
    rows = np.arange(len(picture))
    by_picture = csr_array((np.ones(len(picture)), (picture, rows)), shape=(picture.max() + 1, len(picture)))
    n_c, d_c = by_picture @ fires, by_picture @ drawn
    n_drawn = _total(fires)
    scale = n / np.maximum(n_drawn, 1)
    drawn_sums = {"pictures": n_c.sign(), "n2": n_c.power(2), "nd": n_c * d_c, "d2": d_c.power(2)}
    found = {name: scale * _total(matrix) for name, matrix in drawn_sums.items()}
    # For a latent that fires only outside the draw, assume the average number of firing pairs per picture.
    size = found["n2"].sum() / max((scale * n_drawn).sum(), 1)
    missed = {"pictures": n / size, "n2": n * size, "nd": d1 * size, "d2": d2 * size}
    once, unseen = found["n2"] <= found["pictures"], n_drawn == 0
    columns = (np.select([unseen & (n > 0), once], [missed[k], getattr(alone, k)], found[k]) for k in found)
    return PictureSums(*columns)


def _ratios(draw: PairsDraw) -> tuple[csr_array, csr_array]:
    """Return d = ratio - 1/2 and 1 of every firing pair of the draw, each [pair, d_sae]."""
    every = np.ones(draw.d_sae, dtype=bool)
    image, text = (abs(draw.matrix(m, every)) for m in ("image", "text"))
    total = image + text
    fires = csr_array((np.ones_like(total.data), total.indices, total.indptr), shape=total.shape)
    inverse = csr_array((1 / total.data, total.indices, total.indptr), shape=total.shape)
    return image * inverse - fires * 0.5, fires


def _total(matrix: csr_array) -> PerLatent:
    return np.asarray(matrix.sum(0), dtype=np.float64)
