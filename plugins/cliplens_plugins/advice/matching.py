"""Choose pairs that match a target set in their concepts: Submodular Distribution Matching (SDM, ICLR 2026).

The objective of a set A of pairs is

    balance sum_k p_k log(1 + sum_{m in A} z_mk) + (1 - balance) sum_b u_b log(1 + number of A in quality bin b)

with z the codes of images, p the share of each latent in the codes of the target set, and u the weight of each third of
a quality score (0, .01 and .99, lowest third first). Known from reviews; no code was readable. The paper adds a loss to
the dictionary that makes codes add up to counts; here the dictionary is the given one.
"""

import math

import numpy as np
from jaxtyping import Float, Int

from cliplens_plugins.advice.scores import Codes

BALANCE = 0.9
"""Weight of the concepts. The published weight was not readable."""
BIN_WEIGHTS = (0.0, 0.01, 0.99)
"""Weights of the thirds of the quality score, lowest third first."""
_MISSES = 0.01
"""Chance that the sampled candidates of a step hold none of the best pairs."""


def sdm_choose(
    codes: Codes,
    target: Float[np.ndarray, "other d_sae"],
    count: int,
    *,
    quality: Float[np.ndarray, " pair"] | None = None,
    already: Float[np.ndarray, "own d_sae"] | None = None,
    balance: float = BALANCE,
    seed: int = 0,
) -> Int[np.ndarray, " chosen"]:
    """Return the pairs that stochastic greedy search chooses, in the order of the choice.

    Args:
        codes: codes of the images of the pairs to choose from, 0 or more.
        target: codes of the images of the target set.
        count: number of pairs to choose; all of them if there are fewer.
        quality: a score of each pair, such as its CLIP score; None leaves the second sum out.
        already: codes of pairs that are in the set from the start.
        balance: weight of the concepts, from 0 to 1.
        seed: seed of the candidates of each step.

    >>> sdm_choose(np.eye(3), np.array([[0.0, 1.0, 0.0]]), 1).tolist()
    [1]
    """
    rng = np.random.default_rng(seed)
    weight = _shares(target)
    total = np.zeros(codes.shape[1]) if already is None else already.sum(0).astype(float)
    bins, filled = _thirds(quality, len(codes)), np.zeros(3)
    left = np.ones(len(codes), dtype=bool)
    chosen = []
    sampled = max(1, math.ceil(len(codes) / max(count, 1) * math.log(1 / _MISSES)))
    for _ in range(min(count, len(codes))):
        open_pairs = np.flatnonzero(left)
        tried = rng.choice(open_pairs, min(sampled, len(open_pairs)), replace=False)
        gain = balance * np.log1p(codes[tried] / (1 + total)) @ weight
        if quality is not None:
            gain = gain + (1 - balance) * (np.asarray(BIN_WEIGHTS) * np.log1p(1 / (1 + filled)))[bins[tried]]
        best = int(tried[np.argmax(gain)])
        chosen.append(best)
        left[best] = False
        total += codes[best]
        filled[bins[best]] += 1
    return np.array(chosen, dtype=np.int64)


def sdm_value(
    codes: Codes,
    target: Float[np.ndarray, "other d_sae"],
    *,
    quality: Float[np.ndarray, " pair"] | None = None,
    balance: float = BALANCE,
) -> Float[np.ndarray, " pair"]:
    """Return what the objective of all pairs loses without each pair. Low values mark pairs that SDM would drop first.

    Args:
        codes: codes of the images of the pairs, 0 or more.
        target: codes of the images of the target set; the pairs' own codes ask for no other shares.
        quality: a score of each pair, such as its CLIP score; None leaves the second sum out.
        balance: weight of the concepts, from 0 to 1.

    >>> sdm_value(np.eye(2)[[0, 0, 1]], np.eye(2)).round(2).tolist()
    [0.18, 0.18, 0.31]
    """
    total = codes.sum(0)
    value = -balance * np.log1p(-codes / (1 + total)) @ _shares(target)
    if quality is not None:
        bins = _thirds(quality, len(codes))
        full = np.bincount(bins, minlength=3)
        with np.errstate(divide="ignore"):
            lost = np.log1p(full) - np.log(full)
        value = value + (1 - balance) * (np.asarray(BIN_WEIGHTS) * np.where(full > 0, lost, 0))[bins]
    found: Float[np.ndarray, " pair"] = value
    return found


def _shares(target: Float[np.ndarray, "other d_sae"]) -> Float[np.ndarray, " d_sae"]:
    mass = target.sum(0).astype(float)
    return mass / max(float(mass.sum()), 1e-300)


def _thirds(quality: Float[np.ndarray, " pair"] | None, count: int) -> Int[np.ndarray, " pair"]:
    if quality is None:
        return np.zeros(count, dtype=np.int64)
    ranks = np.argsort(np.argsort(quality, kind="stable"), kind="stable")
    return (ranks * 3 // max(count, 1)).astype(np.int64)
