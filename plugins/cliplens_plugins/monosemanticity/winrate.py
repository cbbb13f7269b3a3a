"""Compute WinRate (Yan et al., arXiv 2502.14888): how often two top samples are more similar than two random samples.

    WinRate = 1/(m(m-1)) * sum over i != j of 1[ S+[i,j] > S-[i,j] ]        0.5 = chance

S+ and S- are those of EmbSim. This is a reimplementation: the paper published no code.
"""

from cliplens.arrays import Array
from cliplens_plugins.monosemanticity.baseline import SEEDS
from cliplens_plugins.monosemanticity.embsim import Similarities, scored


def winrate_score(plus: Similarities, minus: Similarities) -> Similarities:
    """Return 1 where the similarity exceeds that of the baseline, else 0."""
    return (plus > minus).astype(float)


def winrate(activations: Array, embeddings: Array, m: int = 20, *, seeds: int = SEEDS) -> Array:
    """Return WinRate of every latent.

    Args:
        activations: [sample, latent], torch or numpy.
        embeddings: judge embeddings, [sample, d_judge]; normalised internally.
        m: number of top samples.
        seeds: number of random baselines to average over.

    Returns:
        [latent], float64, torch or numpy as the input. Range [0, 1], 0.5 = chance; nan for latents that fire on fewer
        than m samples.

    Raises:
        InputError: the numbers of rows differ, or an embedding is zero.
        NonFiniteError: the activations or embeddings contain nan or inf.

    Source: Yan et al., arXiv 2502.14888 (reimplementation).
    """
    return scored(winrate_score, activations, embeddings, m, seeds)
