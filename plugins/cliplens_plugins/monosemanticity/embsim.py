"""Compute EmbSim (Yan et al., arXiv 2502.14888): the similarity of a latent's top samples above that of random samples.

    EmbSim = 1/(m(m-1)) * sum over i != j of (S+[i,j] - S-[i,j]),        S = Z Z^T

Z+ holds unit-norm judge embeddings of the top m samples, Z- those of m random samples. This is a reimplementation: the
paper published no code.
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cliplens.arrays import Array, as_double, check_same_rows, like, unit_rows
from cliplens_plugins.monosemanticity.baseline import SEEDS, drawn
from cliplens_plugins.monosemanticity.similarity import Score, averaged, top_samples

Similarities = Float[np.ndarray, "latent m m"]


def embsim_score(plus: Similarities, minus: Similarities) -> Similarities:
    """Return the similarity minus that of the baseline."""
    return plus - minus


def plain_score(plus: Similarities, minus: Similarities) -> Similarities:
    """Return the similarity without the baseline."""
    return plus


def embsim(activations: Array, embeddings: Array, m: int = 20, *, plain: bool = False, seeds: int = SEEDS) -> Array:
    """Return EmbSim of every latent.

    Args:
        activations: [sample, latent], torch or numpy.
        embeddings: judge embeddings, [sample, d_judge]; normalised internally.
        m: number of top samples.
        plain: leave out the baseline, the second term.
        seeds: number of random baselines to average over.

    Returns:
        [latent], float64, torch or numpy as the input. Range [-2, 2] ([-1, 1] with `plain`); 0 = as similar as random
        samples. nan for latents that fire on fewer than m samples.

    Raises:
        InputError: the numbers of rows differ, or an embedding is zero.
        NonFiniteError: the activations or embeddings contain nan or inf.

    Source: Yan et al., arXiv 2502.14888 (reimplementation).
    """
    return scored(plain_score if plain else embsim_score, activations, embeddings, m, seeds)


def scored(score: Score, activations: Array, embeddings: Array, m: int, seeds: int) -> Array:
    """Return a similarity score of every latent; top samples and baselines are rows of the same data."""
    acts = as_double(activations, "activations", ("sample", "latent"))
    judged = unit_rows(as_double(embeddings, "judge embeddings", ("sample", "d_judge")))
    check_same_rows(acts, judged, "activations and judge embeddings")
    top = top_samples(acts, m)
    similar = _Similar(judged)
    draws = drawn(len(judged), m, len(top), seeds)
    places, inside = np.unique(draws, return_inverse=True)
    pool = similar.rows[places] @ similar.rows[places].T
    scores = averaged({"": score}, (top, top), similar, pool, inside.reshape(draws.shape))
    return like(torch.as_tensor(scores[""]), activations)


class _Similar:
    """Computes S+ of latents from the indices of their top samples."""

    def __init__(self, judged: Float[Tensor, "sample d_judge"]) -> None:
        self.rows: Float[np.ndarray, "sample d_judge"] = judged.cpu().numpy()

    def __call__(self, i: np.ndarray, j: np.ndarray) -> np.ndarray:
        return self.rows[i] @ self.rows[j].transpose(0, 2, 1)
