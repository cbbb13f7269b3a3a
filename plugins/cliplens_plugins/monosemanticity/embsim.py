"""EmbSim (Yan et al., arXiv 2502.14888): how alike a latent's top samples are to a judge, above random samples.

    EmbSim = 1/(m(m-1)) * sum over i != j of (S+[i,j] - S-[i,j]),        S = Z Z^T

Z+ holds unit-norm judge embeddings of the top m samples, Z- of m random ones of all samples. A reimplementation: the
paper published no code. `plain` leaves the baseline out.
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
    """How much more alike than the baseline."""
    return plus - minus


def plain_score(plus: Similarities, minus: Similarities) -> Similarities:
    """How alike."""
    return plus


def embsim(activations: Array, embeddings: Array, m: int = 20, *, plain: bool = False, seeds: int = SEEDS) -> Array:
    """EmbSim of every latent.

    Args:
        activations: [sample, latent], torch or numpy.
        embeddings: [sample, d_judge], normalised here.
        m: how many top samples.
        plain: leave out the baseline.
        seeds: baselines to average over.

    Returns:
        [latent], float64, of the kind given. Range [-2, 2] ([-1, 1] when plain), 0 = like random samples; nan where
        fewer than m samples fire.

    Raises:
        InputError: the rows differ in number, or an embedding is zero.
        NonFiniteError: nan or inf among the activations or embeddings.

    Source: Yan et al., arXiv 2502.14888 (reimplementation).
    """
    return scored(plain_score if plain else embsim_score, activations, embeddings, m, seeds)


def scored(score: Score, activations: Array, embeddings: Array, m: int, seeds: int) -> Array:
    """A similarity score of every latent whose top samples and baselines are rows of the same data."""
    acts = as_double(activations, "activations", ("sample", "latent"))
    judged = unit_rows(as_double(embeddings, "judge embeddings", ("sample", "d_judge")))
    check_same_rows(acts, judged, "activations and judge embeddings")
    top = top_samples(acts, m)
    similar = _Similar(judged)
    draws = drawn(len(judged), m, len(top), seeds)
    places, inside = np.unique(draws, return_inverse=True)
    pool = similar.rows[places] @ similar.rows[places].T
    scores = averaged(score, (top, top), similar, pool, inside.reshape(draws.shape))
    return like(torch.as_tensor(scores), activations)


class _Similar:
    """S+ of latents from the places of their top samples."""

    def __init__(self, judged: Float[Tensor, "sample d_judge"]) -> None:
        self.rows: Float[np.ndarray, "sample d_judge"] = judged.cpu().numpy()

    def __call__(self, i: np.ndarray, j: np.ndarray) -> np.ndarray:
        return self.rows[i] @ self.rows[j].transpose(0, 2, 1)
