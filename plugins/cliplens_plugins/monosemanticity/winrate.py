"""WinRate (Yan et al., arXiv 2502.14888): how often two top samples of a latent are more alike than two random ones.

    WinRate = 1/(m(m-1)) * sum over i != j of 1[ S+[i,j] > S-[i,j] ]        0.5 = chance

S+ and S- as in EmbSim. A reimplementation: the paper published no code.
"""

from cliplens.arrays import Array
from cliplens_plugins.monosemanticity.baseline import SEEDS
from cliplens_plugins.monosemanticity.embsim import Similarities, scored


def winrate_score(plus: Similarities, minus: Similarities) -> Similarities:
    """1 where more alike than the baseline."""
    return (plus > minus).astype(float)


def winrate(activations: Array, embeddings: Array, m: int = 20, *, seeds: int = SEEDS) -> Array:
    """WinRate of every latent.

    Args:
        activations: [sample, latent], torch or numpy.
        embeddings: [sample, d_judge], normalised here.
        m: how many top samples.
        seeds: baselines to average over.

    Returns:
        [latent], float64, of the kind given. Range [0, 1], 0.5 = chance; nan where fewer than m samples fire.

    Raises:
        InputError: the rows differ in number, or an embedding is zero.
        NonFiniteError: nan or inf among the activations or embeddings.

    Source: Yan et al., arXiv 2502.14888 (reimplementation).
    """
    return scored(winrate_score, activations, embeddings, m, seeds)
