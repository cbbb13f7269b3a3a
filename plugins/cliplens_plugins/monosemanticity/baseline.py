"""Draw the random samples with which the top samples of a latent are compared."""

from functools import lru_cache

import numpy as np
from jaxtyping import Int

SEEDS = 5
DRAWS = 4096
"""Most draws per seed: latents whose numbers differ by a multiple of it share theirs. It bounds time and memory."""


@lru_cache(maxsize=1)
def drawn(n_samples: int, m: int, n_latents: int, seeds: int = SEEDS) -> Int[np.ndarray, "draw seed m"]:
    """Draw `m` distinct sample indices for every seed, once per latent and at most `DRAWS` times.

    Latent n uses draw n modulo the number of draws. With fewer than `m` samples, the axis of seeds is empty.

    The first k indices of a draw are a uniform draw of k, so one draw can be used for every smaller m. The array is
    kept for the next call with the same arguments, and cannot be written to.
    """
    count = min(n_latents, DRAWS)
    if n_samples < m:
        return np.zeros((count, 0, m), np.int64)
    draws = [
        [np.random.default_rng([seed, latent]).choice(n_samples, m, replace=False) for seed in range(seeds)]
        for latent in range(count)
    ]
    found = np.array(draws, dtype=np.int64).reshape(count, seeds, m)
    found.flags.writeable = False
    return found
