"""Compare the modality classes of latents between kinds of words, with intervals and two controls."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from cliplens.keys import hashed_uniform, pair_keys
from cliplens.statistics import percentile_interval
from cliplens.studies import ScoredClasses, matched_sets
from cliplens_plugins.words.presence import LatentWords
from cliplens_plugins.words.taggers import KINDS, Kind

CLASSES = ("ImgD", "TextD", "CrossD")
FEW_WORDS = 3
"""With fewer words a kind has no interval."""


@dataclass(frozen=True)
class KindShare:
    """The share of the latents of one kind of words that have a class, with its controls. All shares are in [0, 1]."""

    kind: Kind
    modality: str
    words: int
    """Words of the kind that at least one latent stands for."""
    latents: int
    share: float
    """nan without latents."""
    low: float
    """95 % interval by bootstrap over words, because latents of one word are alike; nan with fewer than three words."""
    high: float
    shuffled_low: float
    """95 % range of the share when the kinds are shuffled among the words."""
    shuffled_high: float
    p: float
    """Share of the shuffles that differ as much from their mean, two-sided; nan without latents."""
    random: float
    """Mean share among random latents of the same number and firing rates."""
    random_low: float
    random_high: float


def kind_shares(
    found: LatentWords,
    kinds: Sequence[Kind],
    scored: ScoredClasses,
    *,
    draws: int = 1000,
    random_sets: int = 200,
    seed: int = 0,
) -> list[KindShare]:
    """Return the share of each modality class among the latents of each kind of words.

    Args:
        found: the word of each latent.
        kinds: kind of each word.
        scored: class and firing rate of each latent.
        draws: number of bootstrap samples and of shuffles.
        random_sets: number of random sets of latents.
        seed: seed of all random numbers.
    """
    rng = np.random.default_rng(seed)
    latents = np.flatnonzero((found.word >= 0) & scored.alive)
    known, place = np.unique(found.word[latents], return_inverse=True)
    of_word = np.array([kinds[w] for w in known], dtype=str)
    shuffles = [rng.permutation(of_word) for _ in range(draws)]
    shares = []
    for kind in KINDS:
        mine = of_word[place] == kind
        mask = np.zeros(len(found.word), dtype=bool)
        mask[latents[mine]] = True
        sets = matched_sets(mask, np.where(scored.alive, scored.rates, 0.0), random_sets, seed=seed)
        drawn = _word_draws(np.flatnonzero(of_word == kind), draws, rng)
        for modality in CLASSES:
            hit = scored.classes[latents] == modality
            hits, sizes = (np.bincount(place, w, minlength=len(known)) for w in (hit.astype(float), np.ones(len(hit))))
            shuffled = np.array([_ratio(hits[s == kind].sum(), sizes[s == kind].sum()) for s in shuffles])
            boot = np.array([_ratio(hits[d].sum(), sizes[d].sum()) for d in drawn])
            random = np.array([_ratio((scored.classes[s] == modality).sum(), s.sum()) for s in sets])
            share = _ratio(hit[mine].sum(), mine.sum())
            shares.append(
                KindShare(
                    kind, modality, int((of_word == kind).sum()), int(mine.sum()), share, *_range(boot),
                    *_range(shuffled), _p(share, shuffled), _mean(random), *_range(random),
                )
            )  # fmt: skip
    return shares


def _word_draws(words: Any, draws: int, rng: np.random.Generator) -> list[Any]:
    if len(words) < FEW_WORDS:
        return []
    return [rng.choice(words, len(words)) for _ in range(draws)]


def _ratio(part: Any, whole: Any) -> float:
    return float(part / whole) if whole else float("nan")


def _range(values: Float[np.ndarray, " draw"]) -> tuple[float, float]:
    low, high = percentile_interval(values[None])
    return float(low[0]), float(high[0])


def _mean(values: Float[np.ndarray, " draw"]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _p(share: float, shuffled: Float[np.ndarray, " draw"]) -> float:
    known = shuffled[~np.isnan(shuffled)]
    if np.isnan(share) or not len(known):
        return float("nan")
    middle = known.mean()
    further = np.abs(known - middle) >= abs(share - middle) - 1e-12
    return float((1 + further.sum()) / (1 + len(known)))


def split_by_picture(pictures: Sequence[str], seed: int = 0) -> Bool[np.ndarray, " row"]:
    """Return a mask of the rows of half of the pictures, drawn by their names."""
    drawn: np.ndarray = hashed_uniform(pair_keys(list(pictures)), 1700 + seed) < 0.5
    return drawn
