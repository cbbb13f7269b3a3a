"""Compute the similarities of EmbSim and WinRate: S+ among a latent's top samples, S- among random samples."""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Score = Callable[[Float[np.ndarray, "latent m m"], Float[np.ndarray, "latent m m"]], Float[np.ndarray, "latent m m"]]
"""Function of S+ and S- that gives the score of each entry."""
_CHUNK = 64


def averaged(
    scores: Mapping[str, Score],
    tops: tuple[Int[np.ndarray, "latent m"], Int[np.ndarray, "latent m"]],
    similar: Callable[[np.ndarray, np.ndarray], np.ndarray],
    pool: Float[np.ndarray, "sample sample"],
    draws: Int[np.ndarray, "draw seed longest"],
    counts: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
    latents: Int[np.ndarray, " some"] | None = None,
) -> dict[str, Float[np.ndarray, " latent"]]:
    """Return the mean scores of every latent over i != j and over its baselines; nan if fewer than m samples fire.

    Args:
        scores: functions of S+ and S- that give the score of each entry, by name.
        tops: indices of the top samples for the rows and for the columns of S+, padded with -1.
        similar: computes S+ of some latents from the indices of their top samples, [latent, m] each.
        pool: similarities of the samples from which baselines are drawn.
        draws: indices into `pool` of random samples, per draw and seed; latent n uses draw n modulo their number.
        counts: computes, from the same indices, which entries count; all with i != j by default.
        latents: the latents that are scored, others are nan; all by default.
    """
    n_latents, m = tops[0].shape
    out = {name: np.full(n_latents, np.nan) for name in scores}
    full = np.flatnonzero((tops[0] >= 0).all(1) & (tops[1] >= 0).all(1))
    if latents is not None:
        full = np.intersect1d(full, latents)
    if not draws.shape[1]:
        return out
    apart = ~np.eye(m, dtype=bool)
    for start in range(0, len(full), _CHUNK):
        some = full[start : start + _CHUNK]
        i, j = tops[0][some], tops[1][some]
        plus = similar(i, j)
        weigh: Bool[np.ndarray, "latent m m"] = np.broadcast_to(apart, plus.shape)
        weigh = weigh & counts(i, j) if counts else weigh
        total = {name: np.zeros(len(some)) for name in scores}
        for seed in range(draws.shape[1]):
            d = draws[some % len(draws), seed, :m]
            minus = pool[d[:, :, None], d[:, None, :]]
            for name, score in scores.items():
                total[name] += np.where(weigh, score(plus, minus), 0.0).sum((1, 2))
        with np.errstate(invalid="ignore"):
            for name in scores:
                out[name][some] = total[name] / draws.shape[1] / weigh.sum((1, 2))
    return out


def top_samples(activations: Float[Tensor, "sample latent"], m: int) -> Int[np.ndarray, "latent m"]:
    """Return the indices of the m strongest samples of each latent, ties in order of samples; padded with -1."""
    order = torch.argsort(activations, dim=0, descending=True, stable=True)[:m]
    fires = torch.take_along_dim(activations, order, 0) > 0
    top = np.full((activations.shape[1], m), -1)
    top[:, : len(order)] = torch.where(fires, order, -1).T.cpu().numpy()
    return top
