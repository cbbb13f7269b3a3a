"""Name latents with the nearest vocabulary word in the embedding space: the base class of such namers."""

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from cliplens.contracts import Namer
from cliplens.records import Evidence, Name
from cliplens.sites import Modality
from cliplens_plugins.autointerp.ranks import auroc_rows
from cliplens_plugins.autointerp.space import Rows, Seen, blocks, filled, named_from, samples, word_rows

TOLD = 4
"""Number of nearest words to keep: the first is the name, the others are listed in its evidence."""
Nearest = tuple[Int[np.ndarray, "latent told"], Float[np.ndarray, "latent told"]]


@dataclass(frozen=True)
class NearestWordNamer(Namer):
    """Names each latent with its nearest word. Subclasses define how near a word is to a latent."""

    at_least: int = 3
    """Minimum number of top samples of a latent in the modality."""

    @abstractmethod
    def nearest(
        self, evidence: Evidence, seen: Seen, words: Rows, latents: Int[np.ndarray, " latent"]
    ) -> Nearest | None:
        """Return the indices of the `TOLD` nearest words of each latent, nearest first, and their nearness.

        Return None if words and latents cannot be compared.
        """

    @abstractmethod
    def told(self, nearness: float) -> str:
        """Describe the evidence for a name, for example "nearest to its decoder row"."""

    def from_images(self, evidence: Evidence) -> list[Name]:
        """Name each latent that fires on images; the score is the AUROC on its top images."""
        return self.names(evidence, "image")

    def from_captions(self, evidence: Evidence) -> list[Name]:
        """Name each latent that fires on captions; the score is the AUROC on its top captions."""
        return self.names(evidence, "text")

    def names(self, evidence: Evidence, modality: Modality, *, least_score: float = 0.0) -> list[Name]:
        """Return the nearest word of each latent; names that score below `least_score` are withheld."""
        names = [Name(None, float("nan"))] * evidence.d_sae
        seen, words = samples(evidence, modality), word_rows(evidence)
        if seen is None or words is None:
            return names
        latents = named_from(seen[0], evidence.alive, self.at_least)
        found = self.nearest(evidence, seen, words, latents) if len(latents) else None
        if found is None:
            return names
        order, nearness = found
        scores = separation(seen, words[order[:, 0]], latents)
        for k, row, score, value in zip(latents, order, scores, nearness[:, 0], strict=True):
            if not score < least_score:
                best, *others = (evidence.vocabulary[w] for w in row)
                names[k] = Name(best, float(score), f"{self.told(float(value))}; next: {', '.join(others)}")
        return names


def nearest_words(
    directions: Float[np.ndarray, "latent d"], words: Float[np.ndarray, "word d"], mean: Float[np.ndarray, " d"]
) -> Nearest:
    """Return the words with the highest dot product with each direction, minus their dot product with `mean`.

    The subtraction removes hubness: words that are near to every direction would otherwise win everywhere.
    """
    count = min(TOLD, len(words))
    order = np.empty((len(directions), count), dtype=np.int64)
    nearness = np.empty((len(directions), count))
    common = words @ mean
    for block in blocks(len(directions), len(words)):
        near = directions[block] @ words.T - common
        order[block], nearness[block] = top_words(near, count)
    return order, nearness


def top_words(near: Float[np.ndarray, "latent word"], count: int) -> Nearest:
    """Return the indices and values of the `count` highest words of each row, highest first; ties by index."""
    best = np.sort(np.argpartition(-near, count - 1, axis=1)[:, :count], axis=1)
    values = np.take_along_axis(near, best, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    return np.take_along_axis(best, order, axis=1), np.take_along_axis(values, order, axis=1)


def separation(
    seen: Seen, towards: Float[np.ndarray, "latent d"], latents: Int[np.ndarray, " latent"]
) -> Float[np.ndarray, " latent"]:
    """Return the AUROC of each latent's top samples against the background, by their dot product with its word."""
    exemplars, acts, background = seen
    mean = background.mean(axis=0)
    at = filled(exemplars.at[latents])
    scores = np.empty(len(latents))
    for block in blocks(len(latents), at.shape[1] * acts.shape[1] + len(background)):
        positive = ((acts[at[block]] - mean) @ towards[block, :, None])[:, :, 0]
        scores[block] = auroc_rows(positive, at[block] >= 0, towards[block] @ (background - mean).T)
    return scores
