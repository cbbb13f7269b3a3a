"""Which samples a latent's top ones are compared with: m of all samples, drawn anew for every latent and seed."""

import numpy as np
from jaxtyping import Int

SEEDS = 5


def drawn(n_samples: int, m: int, n_latents: int, seeds: int = SEEDS) -> Int[np.ndarray, "latent seed m"]:
    """m different samples out of `n_samples` for every latent and seed; none where there are fewer than m samples.

    The first ones of a draw are a fair draw too, so one draw serves every smaller m.
    """
    if n_samples < m:
        return np.zeros((n_latents, 0, m), np.int64)
    draws = [
        [np.random.default_rng([seed, latent]).choice(n_samples, m, replace=False) for seed in range(seeds)]
        for latent in range(n_latents)
    ]
    return np.array(draws, dtype=np.int64).reshape(n_latents, seeds, m)
