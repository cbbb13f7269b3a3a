"""Count the words and n-grams of captions."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csc_matrix, csr_matrix

from cliplens.naming import function_words, words


def ngrams(
    caption: str, longest: int = 1, *, without: Collection[str] = (), only: Collection[str] | None = None
) -> set[str]:
    """Return the n-grams of a caption, up to `longest` words. Only single words begin or end with a function word.

    Args:
        caption: the caption.
        longest: maximum number of words in an n-gram.
        without: words that no n-gram may contain.
        only: if given, return exactly the n-grams of the caption that are in this collection.

    >>> sorted(ngrams("the big red ball", 2))
    ['ball', 'big', 'big red', 'red', 'red ball', 'the']
    """
    said = words(caption)
    spans = [said[start : start + n] for n in range(1, longest + 1) for start in range(len(said) - n + 1)]
    if only is not None:
        return {gram for span in spans if (gram := " ".join(span)) in only}
    empty = function_words()
    return {
        " ".join(span)
        for span in spans
        if (len(span) == 1 or (span[0] not in empty and span[-1] not in empty)) and not any(w in without for w in span)
    }


@dataclass(frozen=True)
class Lexicon:
    """The n-grams of a list of captions, most frequent first, and the captions that contain them."""

    words: tuple[str, ...]
    index: dict[str, int]
    holds: csr_matrix
    """Sparse [caption, n-gram] matrix: 1 where a caption contains an n-gram."""
    longest: int

    @classmethod
    def of(
        cls,
        captions: Sequence[str],
        longest: int = 1,
        *,
        without: Collection[str] = (),
        only: Collection[str] | None = None,
    ) -> "Lexicon":
        """Count the n-grams of the captions; the options are those of `ngrams`."""
        sets = [ngrams(c, longest, without=without, only=only) for c in captions]
        counts = Counter(w for s in sets for w in s)
        words_ = tuple(sorted(counts, key=lambda w: (-counts[w], w)))
        index = {w: n for n, w in enumerate(words_)}
        return cls(words_, index, _matrix(sets, index), longest)

    def read(self, captions: Sequence[str]) -> "Lexicon":
        """Count the same n-grams in other captions."""
        sets = [ngrams(c, self.longest, only=self.index) for c in captions]
        return Lexicon(self.words, self.index, _matrix(sets, self.index), self.longest)

    def __len__(self) -> int:
        return int(self.holds.shape[0])

    def held(self, captions: Int[np.ndarray, "..."], ngrams_: Int[np.ndarray, "..."]) -> Bool[np.ndarray, "..."]:
        """Return whether each caption contains the corresponding n-gram; the two index arrays broadcast."""
        asked = captions * np.int64(max(len(self.words), 1)) + ngrams_
        place = np.minimum(np.searchsorted(self._pairs, asked), max(len(self._pairs) - 1, 0))
        return self._pairs[place] == asked if len(self._pairs) else np.zeros(asked.shape, dtype=bool)

    def columns(self, ngrams_: Int[np.ndarray, " ngram"]) -> Bool[np.ndarray, "caption ngram"]:
        """Return which captions contain each of the given n-grams."""
        return self._by_ngram[:, ngrams_].toarray().astype(bool)

    @cached_property
    def _by_ngram(self) -> csc_matrix:
        return self.holds.tocsc()

    @cached_property
    def _pairs(self) -> Int[np.ndarray, " held"]:
        """Return `caption * number of n-grams + n-gram` of all entries, in ascending order."""
        caption = np.repeat(np.arange(len(self), dtype=np.int64), np.diff(self.holds.indptr))
        return caption * max(len(self.words), 1) + self.holds.indices

    @cached_property
    def all_counts(self) -> Float[np.ndarray, " ngram"]:
        """Number of captions that contain each n-gram."""
        return np.bincount(self.holds.indices, minlength=len(self.words)).astype(np.float64)

    @cached_property
    def is_function(self) -> Float[np.ndarray, " ngram"]:
        """1 for n-grams that are a function word, 0 for others."""
        return np.array([w in function_words() for w in self.words], dtype=np.float64)

    @cached_property
    def tokens(self) -> Int[np.ndarray, "ngram word"]:
        """Word indices of each n-gram, padded with -1."""
        numbers: dict[str, int] = {}
        longest = max((w.count(" ") + 1 for w in self.words), default=1)
        rows = np.full((len(self.words), longest), -1, dtype=np.int64)
        for n, gram in enumerate(self.words):
            for place, word in enumerate(gram.split()):
                rows[n, place] = numbers.setdefault(word, len(numbers))
        return rows


def _matrix(sets: Sequence[set[str]], index: dict[str, int]) -> csr_matrix:
    rows = [sorted(index[w] for w in s) for s in sets]
    starts = np.cumsum([0, *map(len, rows)])
    columns = np.array([w for row in rows for w in row], dtype=np.int64)
    return csr_matrix((np.ones(len(columns)), columns, starts), shape=(len(sets), len(index)))
