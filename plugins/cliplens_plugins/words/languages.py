"""Which latents are bound to a language, and whether a latent fires on the same thing said in another language."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from cliplens.statistics import percentile_interval
from cliplens_plugins.words.presence import correlations
from cliplens_plugins.words.taggers import words_in

LEAST_FIRINGS = 10
BOUND = 0.5
"""A latent is bound to a language if so much of its firing, at equal numbers of captions, is in that language."""


@dataclass(frozen=True)
class Bound:
    """A latent with the language in which it fires most."""

    latent: int
    language: str
    share: float
    """Rate in that language over the sum of the rates in all, in [0, 1]: 1 fires in that language alone."""
    chance: float
    """97.5 % quantile of the largest share when the languages are permuted among the captions."""
    languages: float
    """Effective number of languages: the exponential of the entropy of the rates, from 1 to their number."""
    firings: int

    @property
    def bound(self) -> bool:
        """Whether it is bound to the language: the share is large, and beyond chance."""
        return self.share >= BOUND and self.share > self.chance


def bound_latents(
    fires: Bool[np.ndarray, "caption latent"],
    languages: Sequence[str],
    *,
    least: int = LEAST_FIRINGS,
    draws: int = 200,
    seed: int = 0,
) -> list[Bound]:
    """Return, for each latent that fires often enough, the language in which it fires most; by falling share.

    Args:
        fires: whether a latent fires on a caption.
        languages: the language of each caption.
        least: least number of captions that a latent must fire on.
        draws: number of permutations of the languages.
        seed: seed of the permutations.
    """
    names, place = np.unique(np.asarray(languages, dtype=str), return_inverse=True)
    latents = np.flatnonzero(fires.sum(0) >= least)
    if len(names) < 2 or not len(latents):
        return []
    kept = fires[:, latents].astype(np.float64)
    shares = _shares(kept, place, len(names))
    rng = np.random.default_rng(seed)
    chance = np.stack([_shares(kept, rng.permutation(place), len(names)).max(0) for _ in range(draws)])
    high = np.quantile(chance, 0.975, axis=0)
    known = np.where(shares > 0, shares, 1.0)
    effective = np.exp(-(known * np.log(known)).sum(0))
    top = shares.argmax(0)
    order = np.argsort(-shares.max(0), kind="stable")
    return [
        Bound(
            int(latents[k]), str(names[top[k]]), float(shares[top[k], k]), float(high[k]), float(effective[k]),
            int(kept[:, k].sum()),
        )
        for k in order
    ]  # fmt: skip


def _shares(
    fires: Float[np.ndarray, "caption latent"], place: np.ndarray, count: int
) -> Float[np.ndarray, "language latent"]:
    one_hot = np.eye(count)[place]
    rates = (one_hot.T @ fires) / np.maximum(one_hot.sum(0), 1)[:, None]
    shares: np.ndarray = rates / np.maximum(rates.sum(0), 1e-300)
    return shares


@dataclass(frozen=True)
class SameThing:
    """How much the same latents fire on one picture's captions in two languages, beside those of another picture."""

    language: str
    pictures: int
    overlap: float
    """Mean over pictures of |both| / |either| of the latents that fire (Jaccard), in [0, 1]; nan without pictures."""
    low: float
    """95 % interval by bootstrap over pictures."""
    high: float
    other: float
    """The same with the captions of another picture: the control."""
    gain: float
    """Overlap minus control."""
    gain_low: float
    gain_high: float


def same_thing(
    fires: Bool[np.ndarray, "caption latent"],
    languages: Sequence[str],
    pictures: Sequence[str],
    reference: str,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> list[SameThing]:
    """Return the overlap of firing between captions in a reference language and in each other one.

    Args:
        fires: whether a latent fires on a caption.
        languages: the language of each caption.
        pictures: the picture of each caption; the first caption of a picture in a language counts.
        reference: the language that the others are compared with.
        resamples: bootstrap samples of pictures.
        seed: seed of all random numbers.
    """
    rows: dict[str, dict[str, int]] = {}
    for n, (language, picture) in enumerate(zip(languages, pictures, strict=True)):
        rows.setdefault(language, {}).setdefault(picture, n)
    rng = np.random.default_rng(seed)
    found = []
    for language in sorted(set(rows) - {reference}):
        shared = sorted(set(rows[language]) & set(rows.get(reference, {})))
        if len(shared) < 2:
            continue
        one = fires[[rows[reference][p] for p in shared]]
        two = fires[[rows[language][p] for p in shared]]
        own, other = _jaccard(one, two), _jaccard(one, np.roll(two, 1 + len(shared) // 2, axis=0))
        drawn = rng.integers(0, len(shared), (resamples, len(shared)))
        low, high = percentile_interval(np.stack([own[drawn].mean(1), (own - other)[drawn].mean(1)]))
        found.append(
            SameThing(
                language, len(shared), float(own.mean()), float(low[0]), float(high[0]), float(other.mean()),
                float((own - other).mean()), float(low[1]), float(high[1]),
            )
        )  # fmt: skip
    return found


def _jaccard(one: Bool[np.ndarray, "row latent"], two: Bool[np.ndarray, "row latent"]) -> Float[np.ndarray, " row"]:
    both, either = (one & two).sum(1), (one | two).sum(1)
    found: np.ndarray = both / np.maximum(either, 1)
    return found


@dataclass(frozen=True)
class NameIn:
    """The word of a language that a latent stands for."""

    latent: int
    word: str
    strength: float
    """Correlation of the caption's code with the word on captions that did not choose it, in [-1, 1]."""


def names_in(
    codes: Float[np.ndarray, "caption latent"],
    captions: Sequence[str],
    chosen_on: Bool[np.ndarray, " caption"],
    *,
    least_captions: int = 4,
    least: float = 0.2,
) -> list[NameIn]:
    """Return the names of latents from captions of one language, by falling strength; latents without one are left out.

    A word is what stands between spaces and punctuation, so names in Chinese, Japanese and Thai are phrases.

    Args:
        codes: codes of the captions.
        captions: captions of one language, in step.
        chosen_on: captions that choose the word; the others measure it.
        least_captions: a word must stand in so many captions.
        least: least correlation on the others.
    """
    held = [set(words_in(caption)) for caption in captions]
    words = sorted(set().union(*held)) if held else []
    present = np.array([[word in of for word in words] for of in held], dtype=bool).reshape(len(held), len(words))
    often = (present.sum(0) >= least_captions) & (present.sum(0) < len(held))
    words, present = [w for w, o in zip(words, often, strict=True) if o], present[:, often]
    if not words:
        return []
    first = correlations(codes[chosen_on], present[chosen_on])
    second = correlations(codes[~chosen_on], present[~chosen_on])
    best = first.argmax(1)
    strength = second[np.arange(len(best)), best]
    kept = np.flatnonzero((strength >= least) & (first.max(1) > 0))
    order = kept[np.argsort(-strength[kept], kind="stable")]
    return [NameIn(int(k), words[best[k]], float(strength[k])) for k in order]
