"""Vocabulary names: the word that tells a latent's top samples from other samples best.

From images: the direction from the background to the latent's top images, in the space both towers share, and the word
whose embedding lies nearest to that direction (the decoder-direction naming of DN-CBM, arXiv 2407.14499, and MSAE, with
the direction measured on samples so that it also works where the dictionary reads inside a tower).
From captions: the word whose share of top captions exceeds its share of other captions most.

A name is made from the samples of even rank and scored on those of odd rank: its score is the AUROC of telling them
from the background by the name alone. The scorer of image names is the model's own text tower: circular for its own
features.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Int

from cliplens.contracts import Namer
from cliplens.naming import auroc, function_words, words
from cliplens.records import Evidence, Exemplars, Name

_NOTHING = Name(None, float("nan"))


@dataclass(frozen=True)
class VocabularyNamer(Namer):
    """One word per latent from a vocabulary; none where fewer than `at_least` samples fire or no word tells them."""

    name: ClassVar[str] = "vocabulary"
    at_least: int = 4
    """Top samples a latent must have: two to name from, two to score on."""
    least_score: float = 0.6
    """Names that tell held-out samples apart no better than this AUROC are withheld."""
    least_lift: float = 0.2
    """By how much a word's share of top captions must exceed its share of others."""

    def from_images(self, evidence: Evidence) -> list[Name]:
        """The vocabulary's word nearest to the direction of each latent's top images."""
        names = [_NOTHING] * evidence.d_sae
        if evidence.images is None or evidence.image_acts is None or evidence.vocabulary_acts is None:
            return names
        acts = _unit(_array(evidence.image_acts))
        background = acts
        if evidence.background_acts is not None and evidence.background_acts.image is not None:
            background = _unit(_array(evidence.background_acts.image))
        middle = background.mean(axis=0)
        spoken = _unit(_centred(_unit(_array(evidence.vocabulary_acts))))
        latents = [
            k for k in range(evidence.d_sae) if evidence.alive[k] and _count(evidence.images, k) >= self.at_least
        ]
        if not latents or not len(spoken):
            return names
        directions = np.stack([_direction(evidence.images, k, acts) for k in latents]) - middle
        nearness = _unit(directions) @ spoken.T
        nearness -= nearness.mean(axis=0)  # a word near to everything names nothing (hubness)
        for row, k in enumerate(latents):
            best = int(nearness[row].argmax())
            held_out = evidence.images.at[k][1::2]
            towards = [(acts[held_out[held_out >= 0]] - middle) @ spoken[best], (background - middle) @ spoken[best]]
            score = auroc(*towards)
            if score >= self.least_score:
                others = [evidence.vocabulary[w] for w in np.argsort(-nearness[row])[1:4]]
                names[k] = Name(
                    evidence.vocabulary[best], score, f"nearest to its top images; next: {', '.join(others)}"
                )
        return names

    def from_captions(self, evidence: Evidence) -> list[Name]:
        """The word by which each latent's top captions differ most from other captions."""
        names = [_NOTHING] * evidence.d_sae
        if evidence.texts is None:
            return names
        lexicon = _Lexicon.of([p.caption or "" for p in evidence.texts.pairs])
        apart = _Lexicon.of([p.caption for p in evidence.background if p.caption], lexicon.place)
        for k in range(evidence.d_sae):
            if evidence.alive[k] and _count(evidence.texts, k) >= self.at_least:
                names[k] = self._by_words(evidence.texts, k, lexicon, apart)
        return names

    def _by_words(self, texts: Exemplars, latent: int, lexicon: "_Lexicon", apart: "_Lexicon") -> Name:
        at = texts.at[latent][texts.at[latent] >= 0]
        named_from, held_out = at[0::2], at[1::2]
        inside = lexicon.counts(named_from)
        if len(apart.holds):
            total, share = len(apart.holds), apart.all_counts
        else:
            total, share = len(lexicon.holds) - len(at), lexicon.all_counts - lexicon.counts(at)
        if total <= 0:
            return _NOTHING
        lift = inside / len(named_from) - share / total
        # A content word is worth a little more than a function word that is just as telling.
        best = int((lift - 0.05 * lexicon.is_function).argmax())
        score = 0.5 * (1 + lexicon.counts(held_out)[best] / len(held_out) - share[best] / total)
        if lift[best] < self.least_lift or score < self.least_score:
            return _NOTHING
        evidence = (
            f"in {inside[best]:.0f} of {len(named_from)} top captions, {100 * share[best] / total:.0f} % of others"
        )
        return Name(lexicon.words[best], float(score), evidence)


@dataclass(frozen=True)
class _Lexicon:
    """Which words stand in which caption."""

    words: tuple[str, ...]
    place: dict[str, int]
    holds: list[Int[np.ndarray, "_"]]
    """Per caption, the places of its words, each once."""

    @classmethod
    def of(cls, captions: Sequence[str], place: dict[str, int] | None = None) -> "_Lexicon":
        """The words of captions; with `place` given, only words known there count."""
        sets = [set(words(c)) for c in captions]
        if place is None:
            common = Counter(w for s in sets for w in s)
            place = {w: n for n, w in enumerate(sorted(common, key=lambda w: (-common[w], w)))}
        holds = [np.array(sorted(place[w] for w in s if w in place), dtype=np.int64) for s in sets]
        return cls(tuple(place), place, holds)

    def counts(self, captions: Int[np.ndarray, " caption"]) -> Float[np.ndarray, " word"]:
        """How many of the given captions hold each word."""
        held = [self.holds[c] for c in captions]
        return np.bincount(np.concatenate(held or [np.empty(0, np.int64)]), minlength=len(self.words)).astype(
            np.float64
        )

    @cached_property
    def all_counts(self) -> Float[np.ndarray, " word"]:
        """How many of all captions hold each word."""
        return self.counts(np.arange(len(self.holds)))

    @cached_property
    def is_function(self) -> Float[np.ndarray, " word"]:
        """1 for a function word, 0 for others."""
        return np.array([w in function_words() for w in self.words], dtype=np.float64)


def _count(exemplars: Exemplars, latent: int) -> int:
    return int((exemplars.at[latent] >= 0).sum())


def _direction(images: Exemplars, latent: int, acts: Float[np.ndarray, "image d"]) -> Float[np.ndarray, " d"]:
    """Mean of the even-ranked top images, weighted by activation."""
    at, values = images.at[latent][0::2], images.values[latent][0::2]
    fires = at >= 0
    weights = np.abs(values[fires]) + 1e-12  # all-zero activations would leave nothing to divide by
    return np.average(acts[at[fires]], axis=0, weights=weights)


def _array(acts: object) -> Float[np.ndarray, "row d"]:
    return acts.detach().cpu().double().numpy()  # type: ignore[attr-defined]


def _centred(acts: Float[np.ndarray, "row d"]) -> Float[np.ndarray, "row d"]:
    return acts - acts.mean(axis=0)


def _unit(acts: Float[np.ndarray, "row d"]) -> Float[np.ndarray, "row d"]:
    return acts / np.maximum(np.linalg.norm(acts, axis=1, keepdims=True), 1e-12)
