"""Which captions hold which word, and the word of each latent."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from cliplens_plugins.words.taggers import Kind, Tagger

LEAST_CAPTIONS = 8
"""A word must stand in so many captions."""
LEAST = 0.2
"""Least correlation, on captions that did not choose the word, for a latent to stand for a word."""


@dataclass(frozen=True, eq=False)
class Words:
    """Words of captions, with their kind and the captions that hold them."""

    words: tuple[str, ...]
    kinds: tuple[Kind, ...]
    """The kind that the tagger gives most often."""
    present: Bool[np.ndarray, "caption word"]


def words_of(captions: Sequence[str], tagger: Tagger, *, least: int = LEAST_CAPTIONS) -> Words:
    """Return the words that stand in at least `least` captions and not in all, in the order of the alphabet."""
    votes: dict[str, Counter[Kind]] = defaultdict(Counter)
    places: dict[str, set[int]] = defaultdict(set)
    for n, caption in enumerate(captions):
        for word, kind in tagger.tagged(caption):
            votes[word][kind] += 1
            places[word].add(n)
    words = sorted(word for word, held in places.items() if least <= len(held) < len(captions))
    present = np.zeros((len(captions), len(words)), dtype=bool)
    for column, word in enumerate(words):
        present[list(places[word]), column] = True
    return Words(tuple(words), tuple(votes[word].most_common(1)[0][0] for word in words), present)


@dataclass(frozen=True, eq=False)
class LatentWords:
    """The word of each latent."""

    word: Int[np.ndarray, " latent"]
    """Place of the word; -1 where no word correlates well enough."""
    strength: Float[np.ndarray, " latent"]
    """Correlation of the code with the word on captions that did not choose it, in [-1, 1]; nan without a word."""


def correlations(
    codes: Float[np.ndarray, "row latent"], present: Bool[np.ndarray, "row word"]
) -> Float[np.ndarray, "latent word"]:
    """Return Pearson correlations of codes and words over rows, in [-1, 1]; 0 where one of the two is constant."""
    if not len(codes):
        return np.zeros((codes.shape[1], present.shape[1]))
    left, right = (_standardised(rows.astype(np.float64)) for rows in (codes, present))
    found: np.ndarray = left.T @ right / len(codes)
    return found


def _standardised(rows: Float[np.ndarray, "row column"]) -> Float[np.ndarray, "row column"]:
    centred = rows - rows.mean(0)
    spread = np.sqrt((centred**2).mean(0))
    flat = spread <= 1e-12 * np.maximum(np.abs(rows).max(0), 1.0)
    return np.where(flat, 0.0, centred / np.where(flat, 1.0, spread))


def latent_words(
    image: Float[np.ndarray, "row latent"],
    text: Float[np.ndarray, "row latent"],
    present: Bool[np.ndarray, "row word"],
    chosen_on: Bool[np.ndarray, " row"],
    *,
    least: float = LEAST,
) -> LatentWords:
    """Return the word of each latent: the one with which its image code or its text code correlates most.

    The word is chosen on some rows and its correlation is measured on the others, so that a strength is not the best
    of many chances.

    Args:
        image: codes of the images of the rows.
        text: codes of the captions of the rows, in step.
        present: whether the caption of a row holds a word.
        chosen_on: rows that choose the word; the others measure it.
        least: least correlation on the others.
    """
    if not present.shape[1]:
        none = np.full(image.shape[1], -1), np.full(image.shape[1], np.nan)
        return LatentWords(*none)
    first = [correlations(codes[chosen_on], present[chosen_on]) for codes in (image, text)]
    other = [correlations(codes[~chosen_on], present[~chosen_on]) for codes in (image, text)]
    latents = np.arange(image.shape[1])
    best = np.maximum(*first)
    word = best.argmax(1)
    of_text = first[1][latents, word] > first[0][latents, word]
    strength = np.where(of_text, other[1][latents, word], other[0][latents, word])
    known = (strength >= least) & (best[latents, word] > 0)
    return LatentWords(np.where(known, word, -1), np.where(known, strength, np.nan))
