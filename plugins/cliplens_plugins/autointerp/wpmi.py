"""Soft-WPMI names of CLIP-Dissect (Oikarinen and Weng, ICLR 2023, https://arxiv.org/abs/2204.10965).

With p(w | x) the softmax over words of temperature * cos(x, w), and B_k the fuzzy set of the latent's top samples, the
r-th of R belonging to it with probability p_r falling evenly from .998 to .97:

    log p(w | B_k) = sum over r of log(1 + p_r * (p(w | x_r) - 1))
    soft-WPMI[k, w] = log p(w | B_k) - lam * log p(w),      p(w) = mean over latents of p(w | B_k)

Our deviations: cosines are taken about the means of samples and of words (the modality gap and words near to everything
would decide otherwise); captions are treated as the authors treat images.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float
from scipy.special import logsumexp, softmax

from cliplens.contracts import Namer
from cliplens.naming import auroc
from cliplens.records import Evidence, Exemplars, Name
from cliplens.sites import Modality
from cliplens_plugins.autointerp.space import named_from, samples, spoken, top_of, unit

_FIRST, _LAST = 0.998, 0.97
_TINY = 1e-7


def soft_wpmi(
    similarity: Float[np.ndarray, "sample word"],
    exemplars: Exemplars,
    latents: list[int],
    *,
    temperature: float = 10.0,
    lam: float = 1.0,
) -> Float[np.ndarray, "latent word"]:
    """Soft-WPMI of each word for each of the latents, from similarities of samples with words."""
    likely = softmax(temperature * similarity, axis=1)
    given = np.stack([_log_likelihood(likely[top_of(exemplars, k)]) for k in latents])
    return given - lam * (logsumexp(given, axis=0) - np.log(len(latents)))


def _log_likelihood(likely: Float[np.ndarray, "top word"]) -> Float[np.ndarray, " word"]:
    belongs = _FIRST - np.arange(len(likely)) / len(likely) * (_FIRST - _LAST)
    return np.log(1 + belongs[:, None] * (likely - 1) + _TINY).sum(axis=0)


@dataclass(frozen=True)
class SoftWpmiNamer(Namer):
    """The word with the greatest soft-WPMI."""

    name: ClassVar[str] = "wpmi"
    at_least: int = 3
    """Top samples a latent must have."""
    temperature: float = 10.0
    """Of the softmax over words; 10 as the authors' code."""
    lam: float = 1.0
    """How much the probability of the word itself counts."""

    def from_images(self, evidence: Evidence) -> list[Name]:
        """From each latent's top images."""
        return self._names(evidence, "image")

    def from_captions(self, evidence: Evidence) -> list[Name]:
        """From each latent's top captions, by their embeddings."""
        return self._names(evidence, "text")

    def _names(self, evidence: Evidence, modality: Modality) -> list[Name]:
        names = [Name(None, float("nan"))] * evidence.d_sae
        seen, words = samples(evidence, modality), spoken(evidence)
        if seen is None or words is None:
            return names
        exemplars, acts, background = seen
        latents = named_from(exemplars, evidence.alive, self.at_least)
        if not latents:
            return names
        middle = background.mean(axis=0)
        similarity = unit(acts - middle) @ words.T
        scores = soft_wpmi(similarity, exemplars, latents, temperature=self.temperature, lam=self.lam)
        for row, k in zip(scores, latents, strict=True):
            order = np.argsort(-row)
            towards = words[order[0]]
            score = auroc(similarity[top_of(exemplars, k), order[0]], unit(background - middle) @ towards)
            best, *others = (evidence.vocabulary[w] for w in order[:4])
            names[k] = Name(best, score, f"soft-WPMI {row[order[0]]:.2f}; next: {', '.join(others)}")
        return names
