"""Derive random numbers from ids of pairs, so that no result depends on the order of the pairs.

Splits, bootstrap weights, sign flips and samples use them. Equal ids give equal numbers on every machine and in every
process.
"""

import hashlib
import re
from collections.abc import Iterable

import numpy as np
from jaxtyping import Bool, Float, UInt64

_FURTHER = re.compile(r"#\d+$")
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def first_id(pair_id: str) -> str:
    """Return the id without the number that marks further captions of one image.

    >>> first_id("cat.jpg#2")
    'cat.jpg'
    """
    return _FURTHER.sub("", pair_id) if "#" in pair_id else pair_id


def pair_keys(ids: Iterable[str]) -> UInt64[np.ndarray, " pair"]:
    """Return a 64-bit key per pair id (BLAKE2b): equal ids have equal keys on every machine.

    Further captions of one image (`cat.jpg#1`, `cat.jpg#2`; see `cliplens.pairs.Pairs`) share the key of the first. So
    a picture never lies on both sides of a split, and a bootstrap draws all its captions together.

    >>> first, second, other = pair_keys(["cat.jpg", "cat.jpg#1", "dog.jpg"])
    >>> bool(first == second), bool(first == other)
    (True, False)
    """
    digests = b"".join(hashlib.blake2b(first_id(i).encode(), digest_size=8).digest() for i in ids)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def text_keys(texts: Iterable[str]) -> UInt64[np.ndarray, " text"]:
    """Return a 64-bit key per text (BLAKE2b), equal wherever the text is equal. The whole text counts.

    >>> keys = text_keys(["a dog", "a dog", "a dog#1"])
    >>> bool(keys[0] == keys[1]), bool(keys[0] == keys[2])
    (True, False)
    """
    digests = b"".join(hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def hashed(keys: UInt64[np.ndarray, "*shape"], seed: int) -> UInt64[np.ndarray, "*shape"]:
    """Return 64-bit random numbers determined by keys and seed (the finaliser of SplitMix64).

    >>> keys = np.arange(3, dtype=np.uint64)
    >>> bool((hashed(keys, 0)[[2, 0]] == hashed(keys[[2, 0]], 0)).all())
    True
    """
    with np.errstate(over="ignore"):
        offset = np.uint64((seed + 1) & 0xFFFFFFFFFFFFFFFF) * _GOLDEN
        z = keys + offset
        z = (z ^ (z >> np.uint64(30))) * _MIX_1
        z = (z ^ (z >> np.uint64(27))) * _MIX_2
        return z ^ (z >> np.uint64(31))


def hashed_uniform(keys: UInt64[np.ndarray, "*shape"], seed: int) -> Float[np.ndarray, "*shape"]:
    """Return uniform numbers in [0, 1) determined by keys and seed, float64.

    >>> hashed_uniform(pair_keys(["a", "b"]), seed=0).round(3)
    array([0.227, 0.254])
    """
    return (hashed(keys, seed) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def held_out(keys: UInt64[np.ndarray, " pair"], fraction: float, seed: int = 0) -> Bool[np.ndarray, " pair"]:
    """Return which pairs are kept from training: about `fraction` of them, chosen by id and seed alone.

    >>> chosen = held_out(pair_keys(f"{n}.jpg" for n in range(1000)), 0.2)
    >>> int(chosen.sum())
    206
    """
    return hashed_uniform(keys, seed) < fraction
