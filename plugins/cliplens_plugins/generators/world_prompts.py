"""Short prompts for the embedded world, written out as the captions its model was trained on.

The model and the generator know captions of one form only, which says every shared factor. "a red ring" says three of
them and would lie outside all they have seen; what it leaves open is drawn from the seed, as texture and light are.
"""

import re
from collections.abc import Mapping
from difflib import get_close_matches

from cliplens.errors import InputError
from cliplens.world import FACTORS, SHARED, captions, draw_scenes, lexicon
from cliplens.world.captions import PLURALS, WORDS

_MORE: Mapping[str, Mapping[str, str]] = {
    "ring": {"shape": "circle", "fill": "hollow"},
    "disk": {"shape": "circle", "fill": "solid"},
    "dot": {"shape": "circle", "fill": "solid", "size": "small"},
    "frame": {"shape": "square", "fill": "hollow"},
}
"""Words that captions do not use, and what they say."""
_SILENT = ("a", "an", "the", "of", "in", "with", "and", "picture", "image", "is")


def long_form(prompt: str, *, seed: int = 0) -> str:
    """Return the caption of the world that says what a short prompt says. Whole captions stay as they are.

    >>> long_form("a red ring")
    'a calm drawing of one small hollow red circle is here in autumn'

    Args:
        prompt: some words of the world, in any order.
        seed: draws what the prompt leaves open, the same for all prompts.

    Raises:
        InputError: the prompt has a word the world does not know, names no shape, or says two values of one factor.
    """
    said = _said(prompt)
    if {*SHARED, "frame", "mood", "tail"} <= said.keys():
        return prompt
    if "shape" not in said:
        raise InputError(
            expected="a prompt that names a shape of the world",
            found=repr(prompt),
            fix=f"name one of {', '.join(FACTORS['shape'].values)} or ring",
        )
    words = _words(prompt)
    synonyms = {f"said_{name}": int(any(_is_synonym(name, word) for word in words)) for name in WORDS}
    scene = draw_scenes(1, seed=seed).replaced(
        **said, **synonyms, tense=FACTORS["tense"].values.index("present"), manner=0
    )
    return captions(scene)[0]


def _words(prompt: str) -> list[str]:
    return re.findall(r"[a-z]+", prompt.casefold())


def _said(prompt: str) -> dict[str, int]:
    """Return factor -> the value that the prompt says."""
    found: dict[str, int] = {}
    words = _words(prompt)
    for word in words:
        for factor, value in _meaning(word).items():
            index = FACTORS[factor].values.index(value)
            if found.setdefault(factor, index) != index:
                raise InputError(
                    expected=f"a prompt that says one {factor}",
                    found=f"{FACTORS[factor].values[found[factor]]} and {value} in {prompt!r}",
                    fix="leave one of them out",
                )
    if "count" not in found and "shape" in found:
        found["count"] = int(any(word != _singular(word) for word in words))  # one of them, or two where it says many
    return found


def _meaning(word: str) -> Mapping[str, str]:
    for name in (word, _singular(word)):
        for factor, pairs in WORDS.items():
            for value, pair in zip(FACTORS[factor].values, pairs, strict=True):
                if name in pair:
                    return {factor: value}
        if name in _MORE:
            return _MORE[name]
    if word in lexicon() or word in _SILENT:
        return {factor: word for factor in ("frame", "mood", "tail") if word in FACTORS[factor].values}
    close = get_close_matches(word, [*lexicon(), *_MORE], n=3)
    raise InputError(
        expected="words of the embedded world",
        found=f"{word!r}",
        fix=f"write {' or '.join(close)}" if close else "name a colour and a shape, such as 'a red star'",
    )


def _singular(word: str) -> str:
    """Return the noun that a plural of the world belongs to; other words as they are."""
    nouns = {*(noun for pair in WORDS["shape"] for noun in pair), *_MORE}
    return next((noun for noun in nouns if PLURALS.get(noun, f"{noun}s") == word), word)


def _is_synonym(factor: str, word: str) -> bool:
    return _singular(word) in {synonym for _, synonym in WORDS[factor]}
