"""Words of captions: how a caption is split, the default vocabulary, and embeddings of words in context."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.resources import files

import torch
from jaxtyping import Float
from torch import Tensor

_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")


@cache
def function_words() -> frozenset[str]:
    """Return the English words that name nothing visible: articles, pronouns, auxiliaries. An asset of the package."""
    lines = (files("cliplens") / "assets" / "function_words.txt").read_text(encoding="utf-8").splitlines()
    return frozenset(word for line in lines if not line.startswith("#") for word in line.split())


def words(caption: str) -> list[str]:
    """Split a caption into lower-case words, in order: letters of any script, with inner apostrophes and hyphens.

    >>> words("A dog's T-shirt, 2 sizes")
    ['a', "dog's", 't-shirt', 'sizes']
    """
    return _WORD.findall(caption.lower())


def caption_vocabulary(captions: Iterable[str], *, most: int = 10_000, at_least: int = 2) -> tuple[str, ...]:
    """Return the default vocabulary: the words of the captions, most frequent first, without function words.

    Args:
        captions: the captions of the pairs themselves.
        most: maximum number of words.
        at_least: minimum number of captions that hold a word. Ignored where no word reaches it.

    >>> caption_vocabulary(["a red dog", "the red cat", "a cat and the dog", "red"])
    ('red', 'cat', 'dog')
    """
    counts = Counter(word for caption in captions for word in set(words(caption)))
    content = [(w, n) for w, n in counts.items() if w not in function_words() and len(w) > 1]
    frequent = [(w, n) for w, n in content if n >= at_least] or content
    return tuple(w for w, _ in sorted(frequent, key=lambda item: (-item[1], item[0]))[:most])


def in_context(
    vocabulary: Sequence[str],
    captions: Iterable[tuple[Sequence[str], Float[Tensor, "_ d_embed"]]],
    alone: Float[Tensor, "word d_embed"],
    *,
    enough: int = 8,
) -> Float[Tensor, "word d_embed"]:
    """Return embeddings of words as they are used in captions, a better direction than that of the bare word.

    The context embedding of a word is the mean embedding of the captions that hold it, minus the mean of all captions.
    It is blended with the embedding of the bare word, minus the mean of all bare words. With n captions the context
    has the weight n / (n + enough). Both parts have unit length before blending. Ours; related to prompt ensembling,
    with the captions at hand as prompts.

    Args:
        vocabulary: words or phrases.
        captions: batches of captions with their embeddings.
        alone: embeddings of the bare words, in the order of `vocabulary`.
        enough: number of captions at which context and bare word have the same weight.
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


def _ngrams(caption: str, longest: int) -> set[str]:
    said = words(caption)
    return {" ".join(said[start : start + n]) for n in range(1, longest + 1) for start in range(len(said) - n + 1)}
