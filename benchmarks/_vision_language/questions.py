"""Training questions: pairs whose captions share a word or two, pairs that lack it, and the words as the answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from _vision_language.layout import ASK, CONFIDENCES, END, FAKE, FIRES, GLOBAL, IMAGE, NOTHING, OPEN, SILENT, closed

SHOWN, OTHERS = 8, 6
"""Samples in a question, as the namer asks by default."""
_COMMON = 0.6
"""Words in more captions than this name nothing."""
_RANDOM, _BOTH = {True: 0.3, False: 0.12}, 0.3
"""Shares of questions about nothing (on pictures, which do not show every word; on captions) and about two words."""


@dataclass(frozen=True)
class Asked:
    """A question as token ids, with its answer, and the pairs that it shows in order."""

    ids: list[int]
    answer: list[int]
    pairs: list[int]


class Captions:
    """Captions of training pairs, as words, with the pairs of each word."""

    def __init__(self, captions: Sequence[str]) -> None:
        self.texts = list(captions)
        self.words = [text.lower().split() for text in captions]
        self.vocabulary = sorted({word for words in self.words for word in words})
        has = np.array([[word in set(words) for word in self.vocabulary] for words in self.words])
        share = has.mean(0)
        kept = (share < _COMMON) & (share > 0.005)
        self.names = [word for word, keep in zip(self.vocabulary, kept, strict=True) if keep]
        self.has = has[:, kept]


class Questions:
    """Draws questions on training pairs."""

    def __init__(self, captions: Captions, tokenizer: Any, seed: int) -> None:
        self.captions, self.rng = captions, np.random.default_rng(seed)
        self.id = tokenizer.convert_tokens_to_ids
        self.fires, self.silent = (tokenizer(text).input_ids for text in (FIRES, SILENT))
        self.picture = [self.id(t) for t in (FAKE, GLOBAL, IMAGE, FAKE)]
        self.said = [tokenizer(f'"{text}"').input_ids for text in captions.texts]

    def draw(self, *, pictures: bool) -> Asked:
        """Return one question, on pictures or on captions."""
        top, rest, answer = self._about(_RANDOM[pictures])
        parts = [*self.fires, *self._shown(top, pictures), *self.silent, *self._shown(rest, pictures)]
        ends = [self.id(token) for token in (*answer, END)]
        return Asked([*parts, self.id(ASK)], ends, [*top, *rest])

    def _shown(self, pairs: list[int], pictures: bool) -> list[int]:
        return [token for pair in pairs for token in (self.picture if pictures else self.said[pair])]

    def _about(self, nothing: float) -> tuple[list[int], list[int], list[str]]:
        """Return the pairs on which a feature fires, those on which it is silent, and the tokens of the answer."""
        has, rng = self.captions.has, self.rng
        if rng.random() < nothing:
            drawn = rng.choice(len(has), SHOWN + OTHERS, replace=False).tolist()
            return drawn[:SHOWN], drawn[SHOWN:], [NOTHING]
        first = int(rng.integers(has.shape[1]))
        both = [first]
        if rng.random() < _BOTH:
            pair = int(rng.choice(np.flatnonzero(has[:, first])))
            both += [int(w) for w in rng.permutation(np.flatnonzero(has[pair])) if w != first][:1]
        fires = has[:, both].all(1)
        top = rng.choice(np.flatnonzero(fires), SHOWN).tolist()
        noisy = rng.random(SHOWN) < rng.choice([0.0, 0.0, 0.15, 0.3])
        top = [int(rng.integers(len(has))) if noise else pair for pair, noise in zip(top, noisy, strict=True)]
        rest = rng.choice(np.flatnonzero(~fires), OTHERS).tolist()
        confidence = CONFIDENCES[2 - min(2, int(noisy.sum()))]
        said = self.captions.words[top[0]] if not noisy[0] else self.captions.names
        words = sorted((self.captions.names[w] for w in both), key=said.index)
        return top, rest, [OPEN, *words, closed(confidence)]
