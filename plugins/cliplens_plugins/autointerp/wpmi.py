"""Name latents with soft-WPMI of CLIP-Dissect (Oikarinen and Weng, ICLR 2023, https://arxiv.org/abs/2204.10965).

p(w | x) is the softmax over words of temperature * cos(x, w). B_k is the fuzzy set of the top samples of latent k; the
r-th of R samples belongs to it with probability p_r, which falls linearly from .998 to .97. Then

    log p(w | B_k) = sum over r of log(1 + p_r * (p(w | x_r) - 1))
    soft-WPMI[k, w] = log p(w | B_k) - lam * log p(w),      p(w) = mean over latents of p(w | B_k)

Our deviations: samples and words are centred on their means before taking cosines, which removes the modality gap and
hub words; captions are treated as the authors treat images.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Int
from scipy.special import logsumexp

from cliplens.records import Evidence, Exemplars
from cliplens_plugins.autointerp.nearest_word import TOLD, Nearest, NearestWordNamer, top_words
from cliplens_plugins.autointerp.space import Rows, Seen, blocks, filled, make_unit

_FIRST, _LAST = 0.998, 0.97
_TINY = 1e-7


def soft_wpmi(
    similarity: Float[np.ndarray, "sample word"],
    exemplars: Exemplars,
    latents: Int[np.ndarray, " latent"] | list[int],
    *,
    temperature: float = 10.0,
    lam: float = 1.0,
) -> Float[np.ndarray, "latent word"]:
    """Return the soft-WPMI of each word for each of the given latents.

    Args:
        similarity: cosine of each sample with each word.
        exemplars: top samples of all latents, among the samples.
        latents: indices of the latents to return.
        temperature: temperature of the softmax over words.
        lam: weight of the log probability of the word.
    """
    normaliser = logsumexp(temperature * similarity, axis=1)
    return _soft_wpmi(similarity, normaliser, exemplars, np.asarray(latents), temperature, lam)


def _soft_wpmi(
    similarity: Float[np.ndarray, "sample word"],
    normaliser: Float[np.ndarray, " sample"],
    exemplars: Exemplars,
    latents: Int[np.ndarray, " latent"],
    temperature: float,
    lam: float,
) -> Float[np.ndarray, "latent word"]:
    """Return the soft-WPMI of a block of words; `normaliser` is the log-sum-exp of each sample over all words."""
    likely = np.exp(temperature * similarity - normaliser[:, None])
    at = filled(exemplars.at[latents])
    count = (at >= 0).sum(axis=1, keepdims=True)
    belongs = _FIRST - np.arange(at.shape[1]) / np.maximum(count, 1) * (_FIRST - _LAST)
    given = np.empty((len(latents), likely.shape[1]))
    for block in blocks(len(latents), at.shape[1] * likely.shape[1]):
        terms = np.log(1 + belongs[block, :, None] * (likely[at[block]] - 1) + _TINY)
        given[block] = (terms * (at[block] >= 0)[:, :, None]).sum(axis=1)
    return given - lam * (logsumexp(given, axis=0) - np.log(len(latents)))


@dataclass(frozen=True)
class SoftWpmiNamer(NearestWordNamer):
    """Name each latent with the word of the highest soft-WPMI."""

    name: ClassVar[str] = "wpmi"
    temperature: float = 10.0
    """Temperature of the softmax over words; 10 as in the authors' code."""
    lam: float = 1.0
    """Weight of the log probability of the word."""

    def nearest(
        self, evidence: Evidence, seen: Seen, words: Rows, latents: Int[np.ndarray, " latent"]
    ) -> Nearest | None:
        """Return the words with the highest soft-WPMI."""
        exemplars, acts, background = seen
        rows = make_unit(acts[np.arange(len(acts))] - background.mean(axis=0))
        normaliser = np.full(len(rows), -np.inf)
        parts = list(blocks(len(words), len(rows) + len(latents)))
        for part in parts:
            here = logsumexp(self.temperature * (rows @ words[part].T), axis=1)
            normaliser = np.logaddexp(normaliser, here)
        order = np.empty((len(latents), 0), dtype=np.int64)
        nearness = np.empty((len(latents), 0))
        for part in parts:
            scores = _soft_wpmi(rows @ words[part].T, normaliser, exemplars, latents, self.temperature, self.lam)
            indices = np.broadcast_to(np.arange(len(words))[part], scores.shape)
            order, nearness = np.hstack([order, indices]), np.hstack([nearness, scores])
            best, nearness = top_words(nearness, min(TOLD, nearness.shape[1]))
            order = np.take_along_axis(order, best, axis=1)
        return order, nearness

    def told(self, nearness: float) -> str:
        """Describe the evidence."""
        return f"soft-WPMI {nearness:.2f}"
