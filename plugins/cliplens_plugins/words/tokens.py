"""Count the pieces that a tokenizer cuts captions into: per word and character, broken, unknown, truncated."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cliplens.pairs import tokenised
from cliplens_plugins.words.taggers import words_in

_BYTE_FALLBACK = "<0x"


@dataclass(frozen=True)
class Pieces:
    """Pieces of a text, without start, end and padding."""

    count: int
    broken: int
    """Pieces that are no whole characters: parts of the bytes of one."""
    unknown: int
    """Pieces that stand for anything the vocabulary lacks."""


@dataclass(frozen=True)
class Coverage:
    """How a tokenizer cuts the captions of one language."""

    language: str
    captions: int
    pieces_per_word: float
    """nan where the tokenizer shows no pieces. In scripts without spaces, a word is what stands between punctuation."""
    pieces_per_character: float
    broken: float
    """Share of pieces that are parts of a character, in [0, 1]."""
    unknown: float
    """Share of pieces that stand for anything the vocabulary lacks, in [0, 1]."""
    truncated: float
    """Share of captions that are longer than the context, in [0, 1]."""


def coverage(tokenizer: Any, captions: Mapping[str, Sequence[str]]) -> list[Coverage]:
    """Return how a tokenizer cuts captions, per language.

    Args:
        tokenizer: tokenizer of a model, open_clip's or one of transformers; others show only what is truncated.
        captions: captions by language; a language without any is left out.
    """
    count = piece_counter(tokenizer)
    return [_of_language(language, texts, tokenizer, count) for language, texts in captions.items() if texts]


def _of_language(
    language: str, texts: Sequence[str], tokenizer: Any, count: Callable[[str], Pieces] | None
) -> Coverage:
    cut = tokenised(list(texts), tokenizer).truncated / len(texts)
    if count is None:
        nan = float("nan")
        return Coverage(language, len(texts), nan, nan, nan, nan, cut)
    found = [count(text) for text in texts]
    pieces = sum(p.count for p in found)
    words = sum(len(words_in(text)) for text in texts)
    characters = sum(len("".join(text.split())) for text in texts)
    return Coverage(
        language,
        len(texts),
        pieces / words if words else float("nan"),
        pieces / characters if characters else float("nan"),
        sum(p.broken for p in found) / pieces if pieces else float("nan"),
        sum(p.unknown for p in found) / pieces if pieces else float("nan"),
        cut,
    )


def piece_counter(tokenizer: Any) -> Callable[[str], Pieces] | None:
    """Return a function that counts the pieces of a text; None for a tokenizer that shows no pieces."""
    if hasattr(tokenizer, "byte_decoder") and hasattr(tokenizer, "decoder") and hasattr(tokenizer, "encode"):
        return lambda text: _of_clip(tokenizer, text)
    inner = getattr(tokenizer, "tokenizer", tokenizer)
    if hasattr(inner, "convert_ids_to_tokens") and hasattr(inner, "encode"):
        return lambda text: _of_transformers(inner, text)
    return None


def _of_clip(tokenizer: Any, text: str) -> Pieces:
    pieces = [tokenizer.decoder[i].replace("</w>", "") for i in tokenizer.encode(text)]
    raw = [bytes(tokenizer.byte_decoder[letter] for letter in piece) for piece in pieces]
    return Pieces(len(raw), sum(not _whole(part) for part in raw), 0)


def _of_transformers(tokenizer: Any, text: str) -> Pieces:
    ids = tokenizer.encode(text, add_special_tokens=False)
    names = tokenizer.convert_ids_to_tokens(ids)
    letters = getattr(tokenizer, "byte_decoder", None)
    if letters:
        broken = sum(not _whole(bytes(letters.get(x, 0) for x in name.replace("</w>", ""))) for name in names)
    else:
        broken = sum(name.startswith(_BYTE_FALLBACK) for name in names)
    unknown = getattr(tokenizer, "unk_token_id", None)
    lacks = 0 if unknown is None else sum(i == unknown for i in ids)
    return Pieces(len(ids), broken, lacks)


def _whole(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True
