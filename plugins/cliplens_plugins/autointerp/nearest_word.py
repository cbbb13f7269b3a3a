"""Name latents with the nearest vocabulary word in the embedding space: the base class of such namers."""

from abc import abstractmethod
from collections.abc import Callable
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
        scores = separation(seen, lambda block: words[order[block, 0]], latents)
        for k, row, score, value in zip(latents, order, scores, nearness[:, 0], strict=True):
            if not score < least_score:
                best, *others = (evidence.vocabulary[w] for w in row)
                names[k] = Name(best, float(score), f"{self.told(float(value))}; next: {', '.join(others)}")
        return names


def nearest_words(
    directions: Callable[[slice], Float[np.ndarray, "block d"]],
    count: int,
    words: Float[np.ndarray, "word d"],
    mean: Float[np.ndarray, " d"] | None = None,
    *,
    told: int = TOLD,
) -> Nearest:
    """Return the words with the highest dot product with each direction, minus their dot product with `mean`.

    The subtraction removes hubness: words that are near to every direction would otherwise win everywhere.

    Args:
        directions: gives the directions of some latents. It is asked for a few at a time, twice if there is no `mean`.
        count: number of directions.
        words: unit rows of the words.
        mean: mean direction; None: that of `directions`.
        told: number of words of each direction, if there are as many.
    """
    told = min(told, len(words))
    order, nearness = np.empty((count, told), dtype=np.int64), np.empty((count, told))
    parts = list(blocks(count, max(words.shape)))
    common = words @ (sum(directions(block).sum(axis=0) for block in parts) / count if mean is None else mean)
    for block in parts:
        near = directions(block) @ words.T - common
        order[block], nearness[block] = top_words(near, told)
    return order, nearness


def top_words(near: Float[np.ndarray, "latent word"], count: int) -> Nearest:
    """Return the indices and values of the `count` highest words of each row, highest first; ties by index."""
    best = np.sort(np.argpartition(-near, count - 1, axis=1)[:, :count], axis=1)
    values = np.take_along_axis(near, best, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    return np.take_along_axis(best, order, axis=1), np.take_along_axis(values, order, axis=1)


def separation(
    seen: Seen, towards: Callable[[slice], Float[np.ndarray, "block d"]], latents: Int[np.ndarray, " latent"]
) -> Float[np.ndarray, " latent"]:
    """Return the AUROC of each latent's top samples against the background, by their dot product with its word.

    Args:
        seen: the samples and the background.
        towards: gives the rows of the words of some of `latents`. It is asked for a few at a time.
        latents: the latents.
    """
    exemplars, acts, background = seen
    mean = background.mean(axis=0)
    others = (background - mean).T
    at = filled(exemplars.at[latents])
    scores = np.empty(len(latents))
    for block in blocks(len(latents), at.shape[1] * acts.shape[1] + len(background)):
        word = towards(block)
        positive = ((acts[at[block]] - mean) @ word[:, :, None])[:, :, 0]
        scores[block] = auroc_rows(positive, at[block] >= 0, word @ others)
    return scores
