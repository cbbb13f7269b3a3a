"""Draw the random samples with which the top samples of a latent are compared."""

from functools import lru_cache

import numpy as np
from jaxtyping import Int

SEEDS = 5


@lru_cache(maxsize=1)
def drawn(n_samples: int, m: int, n_latents: int, seeds: int = SEEDS) -> Int[np.ndarray, "latent seed m"]:
    """Draw `m` distinct sample indices for every latent and seed; an empty array if there are fewer than `m` samples.

    The first k indices of a draw are a uniform draw of k, so one draw can be used for every smaller m. The array is
    kept for the next call with the same arguments, and cannot be written to.
    """
    if n_samples < m:
        return np.zeros((n_latents, 0, m), np.int64)
    draws = [
        [np.random.default_rng([seed, latent]).choice(n_samples, m, replace=False) for seed in range(seeds)]
        for latent in range(n_latents)
    ]
    found = np.array(draws, dtype=np.int64).reshape(n_latents, seeds, m)
    found.flags.writeable = False
    return found
