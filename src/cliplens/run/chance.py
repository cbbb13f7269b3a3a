"""Measure the correlation with words that a latent reaches by chance, when captions are shuffled."""

import numpy as np
from jaxtyping import Bool, Float

from cliplens.records import SparseCodes

SHUFFLES = 100
_SEED = 41


def reached_by_chance(codes: SparseCodes, said: Bool[np.ndarray, " row"], shuffles: int = SHUFFLES) -> float:
    """Return the correlation that the best latent exceeds in 5 % of shuffles of the captions among the rows.

    With few pairs, some of many latents goes with any word, the more so if its codes are few and large.

    Args:
        codes: codes of the rows.
        said: whether the caption of each row contains the words.
        shuffles: number of shuffles.
    """
    rows, latents = codes.rows.cpu().numpy(), codes.latents.cpu().numpy()
    values = codes.values.double().cpu().numpy()
    n = codes.n_rows

    def summed(of: Float[np.ndarray, " firing"]) -> Float[np.ndarray, " d_sae"]:
        return np.bincount(latents, of, codes.d_sae).astype(np.float64)  # whole numbers where nothing fires

    mean = summed(values) / n
    spread = np.sqrt(np.maximum(summed(values**2) / n - mean**2, 0)) * said.std()
    known = spread > 0
    if not known.any():
        return 0.0
    rng = np.random.default_rng(_SEED)
    best = []
    for _ in range(shuffles):
        label = rng.permutation(said).astype(np.float64)
        covariance = summed(values * label[rows]) / n - mean * label.mean()
        best.append((covariance[known] / spread[known]).max())
    return float(np.quantile(best, 0.95))
