"""Byte-pair merges and token ids of the names of emoji in many languages."""

import gzip
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from jaxtyping import Int64
from open_clip.tokenizer import SimpleTokenizer, bytes_to_unicode, get_clean_fn
from torch import Tensor, tensor

from cliplens.pairs.emoji import named
from cliplens_hooks.assets import MERGES
from cliplens_hooks.models.emoji import TRAINED_LANGUAGES

N_MERGES = 4_500


def learnt_merges(texts: Iterable[str], n: int = N_MERGES) -> list[str]:
    """Return byte-pair merges of texts in the notation of CLIP's merges file."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    letters = bytes_to_unicode()
    clean = get_clean_fn("lower")
    pattern = SimpleTokenizer().pat
    words = Counter(word for text in texts for word in pattern.findall(clean(text)))
    spelt = {"".join(letters[b] for b in word.encode()): count for word, count in words.items()}
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    alphabet = [*letters.values()]
    trainer = trainers.BpeTrainer(
        vocab_size=2 * len(alphabet) + n, initial_alphabet=alphabet, end_of_word_suffix="</w>", show_progress=False
    )
    lines = (" ".join([word] * min(count, 50)) for word, count in sorted(spelt.items()))
    tokenizer.train_from_iterator(lines, trainer)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return [merge if isinstance(merge, str) else " ".join(merge) for merge in merges][:n]


def save_merges(path: Path = MERGES) -> None:
    """Learn the merges of all names and tags and write them, with reproducible bytes."""
    texts = (
        text for language in TRAINED_LANGUAGES for name, tags in named(language).values() for text in (name, *tags)
    )
    lines = ["#version: 0.2", *learnt_merges(texts)]
    with path.open("wb") as raw, gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as file:
        file.write("\n".join(lines).encode())


class Encoder:
    """Token ids of short texts, kept, so that a caption is a concatenation."""

    def __init__(self, tokenizer: SimpleTokenizer) -> None:
        self._tokenizer = tokenizer
        self._known: dict[str, list[int]] = {}
        self.comma = tokenizer.encode(",")

    def __call__(self, text: str) -> list[int]:
        """Return the ids of a text, without start and end."""
        if text not in self._known:
            self._known[text] = self._tokenizer.encode(text)
        return self._known[text]

    def joined(self, parts: Iterable[str]) -> list[int]:
        """Return the ids of texts joined by commas."""
        ids: list[int] = []
        for part in parts:
            ids += [*(self.comma if ids else []), *self(part)]
        return ids

    def padded(self, captions: list[list[int]], context: int) -> Int64[Tensor, "caption token"]:
        """Return ids with start and end, as wide as the longest caption needs."""
        start, end = self._tokenizer.sot_token_id, self._tokenizer.eot_token_id
        cut = [[start, *ids[: context - 2], end] for ids in captions]
        width = max(map(len, cut))
        return tensor([[*ids, *[0] * (width - len(ids))] for ids in cut])
