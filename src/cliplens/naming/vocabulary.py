"""Split captions into words, choose the default vocabulary, and embed words in context."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.resources import files

import torch
from jaxtyping import Float
from torch import Tensor

AT_MOST = 0.6
"""Maximum share of captions that contain a word of a name.

A word in a share p of all captions separates top captions from others with an AUROC of at most 1 - p / 2. For p > 0.6
this is below 0.7, the minimum score of a name from captions.
"""
_ENOUGH = 20
"""Minimum number of captions to estimate that share from; with fewer, no word is dropped."""
_MARKS = "\u0300-\u036f\u0591-\u05bd\u0610-\u061a\u064b-\u065f\u0900-\u0963\u0980-\u0dff\u0e30-\u0e4e"
"""Marks within words that Python does not count as letters: accents, vowels of Hebrew, Arabic, Hindi, Thai."""
_LETTER = rf"(?:[^\W\d_]|(?!\d)[{_MARKS}])"
_WORD = re.compile(rf"{_LETTER}+(?:['’-]{_LETTER}+)*")
_FIRST_SYLLABLE = "\u3040"
"""From here on, one character can be a word: Japanese, Chinese, Korean."""


@cache
def function_words() -> frozenset[str]:
    """Return the English function words (articles, pronouns, auxiliaries, ...) from the list in the package."""
    lines = (files("cliplens") / "assets" / "function_words.txt").read_text(encoding="utf-8").splitlines()
    return frozenset(word for line in lines if not line.startswith("#") for word in line.split())


def words(caption: str) -> list[str]:
    """Split a caption into lower-case words, in order: letters of any script, with inner apostrophes and hyphens.

    Words are what stands between spaces and punctuation, so a Thai, Chinese or Japanese phrase is one word.

    >>> words("A dog's T-shirt, 2 sizes")
    ['a', "dog's", 't-shirt', 'sizes']
    """
    return _WORD.findall(caption.lower())


def too_frequent(captions: Iterable[str], at_most: float = AT_MOST) -> frozenset[str]:
    """Return the words in more than a share `at_most` of the captions; no words if there are fewer than 20 captions.

    >>> sorted(too_frequent(["a photo of a dog", "a photo of a cat"] * 10))
    ['a', 'of', 'photo']
    """
    counts, total = _document_counts(captions)
    return frozenset(w for w, n in counts.items() if n > at_most * total) if total >= _ENOUGH else frozenset()


def caption_vocabulary(
    captions: Iterable[str], *, most: int = 10_000, at_least: int = 2, at_most: float = AT_MOST
) -> tuple[str, ...]:
    """Return the default vocabulary: the words of the captions, most frequent first.

    Function words are left out. So are words in more than a share `at_most` of the captions (if there are at least 20),
    because they do not distinguish captions.

    Args:
        captions: the captions of the pairs.
        most: maximum number of words.
        at_least: minimum number of captions that contain a word. Ignored if no word reaches it.
        at_most: maximum share of captions that contain a word, in [0, 1].

    >>> caption_vocabulary(["a red dog", "the red cat", "a cat and the dog", "red"])
    ('red', 'cat', 'dog')
    """
    counts, total = _document_counts(captions)
    limit = at_most * total if total >= _ENOUGH else total
    content = [(w, n) for w, n in counts.items() if w not in function_words() and _is_long(w) and n <= limit]
    frequent = [(w, n) for w, n in content if n >= at_least] or content
    return tuple(w for w, _ in sorted(frequent, key=lambda item: (-item[1], item[0]))[:most])


def _is_long(word: str) -> bool:
    return len(word) > 1 or word >= _FIRST_SYLLABLE


def in_context(
    vocabulary: Sequence[str],
    captions: Iterable[tuple[Sequence[str], Float[Tensor, "_ d_embed"]]],
    alone: Float[Tensor, "word d_embed"],
    *,
    enough: int = 8,
) -> Float[Tensor, "word d_embed"]:
    """Return embeddings of words as used in captions, which are better directions than those of the bare words.

    The context embedding of a word is the mean embedding of the captions that contain it, minus the mean of all
    captions. It is averaged with the embedding of the bare word, minus the mean of all bare words; both have unit norm.
    With n captions, the weight of the context is n / (n + enough). Ours; related to prompt ensembling, with captions as
    prompts.

    Args:
        vocabulary: words or phrases.
        captions: batches of captions with their embeddings.
        alone: embeddings of the bare words, in the order of `vocabulary`.
        enough: number of captions at which context and bare word have equal weights.
    """
    index_of = {" ".join(words(word)): n for n, word in enumerate(vocabulary)}
    longest = max((len(words(word)) for word in vocabulary), default=1)
    sums, counts = torch.zeros_like(alone, dtype=torch.float64), torch.zeros(len(vocabulary), dtype=torch.float64)
    total, seen = torch.zeros(alone.shape[1], dtype=torch.float64), 0
    for texts, acts in captions:
        rows = torch.nn.functional.normalize(acts.detach().cpu().double(), dim=-1)
        total, seen = total + rows.sum(0), seen + len(rows)
        found = [
            (row, index_of[gram])
            for row, text in enumerate(texts)
            for gram in _ngrams(text, longest)
            if gram in index_of
        ]
        if found:
            caption_indices, word_indices = torch.tensor(found).T
            sums.index_add_(0, word_indices, rows[caption_indices])
            counts.index_add_(0, word_indices, torch.ones(len(word_indices), dtype=torch.float64))
    bare = torch.nn.functional.normalize(alone.detach().cpu().double(), dim=-1)
    bare = torch.nn.functional.normalize(bare - bare.mean(0), dim=-1)
    mean = total / max(seen, 1)
    context = torch.nn.functional.normalize(sums / counts.clamp(min=1)[:, None] - mean, dim=-1)
    weight = (counts / (counts + enough))[:, None]
    return (weight * context + (1 - weight) * bare).to(alone.dtype)


def _document_counts(captions: Iterable[str]) -> tuple[Counter[str], int]:
    """Return the number of captions that contain each word, and the number of captions."""
    counts: Counter[str] = Counter()
    total = 0
    for caption in captions:
        counts.update(set(words(caption)))
        total += 1
    return counts, total


def _ngrams(caption: str, longest: int) -> set[str]:
    said = words(caption)
    return {" ".join(said[start : start + n]) for n in range(1, longest + 1) for start in range(len(said) - n + 1)}
