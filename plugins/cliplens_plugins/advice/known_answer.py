"""Damage captions of the world in a known way, to test the scores: delete or replace one word."""

import re
from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Bool

from cliplens.errors import unknown_name
from cliplens.world.captions import WORDS

Kind = Literal["delete", "replace"]
FACTORS = ("colour", "size", "fill")
"""Factors that captions of the world name with one adjective."""


def spoil(
    captions: Sequence[str], factor: str, kind: Kind, share: float = 0.1, *, seed: int = 0
) -> tuple[list[str], Bool[np.ndarray, " caption"]]:
    """Return the captions with some of them spoiled, and a mask of the spoiled ones.

    Args:
        captions: captions of the world.
        factor: the factor to spoil: "colour", "size" or "fill".
        kind: "delete" deletes the word for the factor, "replace" replaces it by the word for another value.
        share: share of captions to spoil.
        seed: seed of the choice.

    Raises:
        UnknownNameError: captions do not name the factor with one adjective.

    >>> spoil(["one small solid red disc is here"], "colour", "delete", 1.0)[0]
    ['one small solid disc is here']
    """
    if factor not in FACTORS:
        raise unknown_name("factor with one adjective", factor, FACTORS)
    rng = np.random.default_rng(seed)
    chosen = rng.random(len(captions)) < share
    value_of = {word: value for value, words in enumerate(WORDS[factor]) for word in words}
    pattern = re.compile(rf"\b({'|'.join(value_of)})\b ")
    out = []
    for caption, spoiled in zip(captions, chosen, strict=True):
        found = pattern.search(caption) if spoiled else None
        if found is None:
            out.append(caption)
            continue
        others = [v for v in range(len(WORDS[factor])) if v != value_of[found[1]]]
        new = "" if kind == "delete" else f"{WORDS[factor][int(rng.choice(others))][0]} "
        out.append(caption[: found.start()] + new + caption[found.end() :])
    return out, np.array([a != b for a, b in zip(captions, out, strict=True)])
