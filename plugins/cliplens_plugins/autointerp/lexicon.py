"""Which words or n-grams stand in which caption, counted fast."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_matrix

from cliplens.naming import function_words, words


def ngrams(caption: str, longest: int = 1) -> set[str]:
    """The n-grams of a caption, up to `longest` words; none but single words begins or ends with a function word."""
    said = words(caption)
    found = set(said)
    for n in range(2, longest + 1):
        for at in range(len(said) - n + 1):
            if said[at] not in function_words() and said[at + n - 1] not in function_words():
                found.add(" ".join(said[at : at + n]))
    return found


@dataclass(frozen=True)
class Lexicon:
    """The n-grams of a list of captions, by place; frequent ones first."""

    words: tuple[str, ...]
    place: dict[str, int]
    holds: list[Int[np.ndarray, "_"]]
    """Per caption, the places of its n-grams, each once."""
    longest: int

    @classmethod
    def of(cls, captions: Sequence[str], longest: int = 1) -> "Lexicon":
        """All n-grams of the captions."""
        sets = [ngrams(c, longest) for c in captions]
        counts = Counter(w for s in sets for w in s)
        words_ = tuple(sorted(counts, key=lambda w: (-counts[w], w)))
        place = {w: n for n, w in enumerate(words_)}
        return cls(words_, place, [np.array(sorted(place[w] for w in s), dtype=np.int64) for s in sets], longest)

    def read(self, captions: Sequence[str]) -> "Lexicon":
        """Other captions by the same places; n-grams not known here do not count."""
        sets = [ngrams(c, self.longest) for c in captions]
        holds = [np.array(sorted(self.place[w] for w in s if w in self.place), dtype=np.int64) for s in sets]
        return Lexicon(self.words, self.place, holds, self.longest)

    def counts(self, captions: Int[np.ndarray, " caption"]) -> Float[np.ndarray, " word"]:
        """How many of the given captions hold each n-gram."""
        held = [self.holds[c] for c in captions]
        joined = np.concatenate([np.empty(0, np.int64), *held])
        return np.bincount(joined, minlength=len(self.words)).astype(np.float64)

    def holding(
        self, ngrams_: Sequence[int], captions: Int[np.ndarray, " caption"] | None = None
    ) -> Float[np.ndarray, "caption ngram"]:
        """1 where a caption holds an n-gram, for some n-grams and some captions (all by default)."""
        at = slice(None) if captions is None else captions
        return self._matrix[at][:, list(ngrams_)].toarray()

    @cached_property
    def _matrix(self) -> csr_matrix:
        rows = np.repeat(np.arange(len(self.holds)), [len(h) for h in self.holds])
        columns = np.concatenate([np.empty(0, np.int64), *self.holds])
        return csr_matrix((np.ones(len(rows)), (rows, columns)), shape=(len(self.holds), len(self.words)))

    @cached_property
    def all_counts(self) -> Float[np.ndarray, " word"]:
        """How many of all captions hold each n-gram."""
        return self.counts(np.arange(len(self.holds)))

    @cached_property
    def is_function(self) -> Float[np.ndarray, " word"]:
        """1 for a function word, 0 for others."""
        return np.array([w in function_words() for w in self.words], dtype=np.float64)
