"""Define the factors of a scene of the embedded world, and draw scenes.

All factors are independent and uniform over their values. *Shared* factors appear in picture and caption, *image*
factors in the picture only, *text* factors in the caption only. Nuisances change pictures or captions and are not
part of the ground truth.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from jaxtyping import Int, UInt64

from cliplens.errors import InputError, unknown_name
from cliplens.keys import hashed_uniform
from cliplens.records import Sharing


@dataclass(frozen=True)
class Factor:
    """One property of a scene: its name, the modality that carries it, and the names of its values."""

    name: str
    sharing: Sharing
    values: tuple[str, ...]


def _table(*factors: Factor) -> Mapping[str, Factor]:
    return MappingProxyType({factor.name: factor for factor in factors})


FACTORS: Mapping[str, Factor] = _table(
    Factor("shape", "shared", ("circle", "square", "triangle", "star", "heart", "cross", "moon", "arrow")),
    Factor("colour", "shared", ("red", "orange", "yellow", "green", "blue", "purple", "black", "white")),
    Factor("size", "shared", ("small", "medium", "large")),
    Factor("count", "shared", ("one", "two", "three")),
    Factor("fill", "shared", ("solid", "hollow")),
    Factor("texture", "image", ("plain", "rows", "columns", "dots", "checks", "diagonals")),
    Factor("tint", "image", ("sand", "sage", "slate", "mauve")),
    Factor("position", "image", ("top-left", "top-right", "bottom-right", "bottom-left")),
    Factor("light", "image", ("from-left", "from-above", "from-right")),
    Factor("grain", "image", ("smooth", "grainy")),
    Factor("frame", "text", ("photo", "drawing", "painting", "sketch", "print")),
    Factor("tense", "text", ("past", "present", "future")),
    Factor("mood", "text", ("happy", "sad", "calm", "angry", "proud")),
    Factor("manner", "text", ("neutral", "polite", "rude")),
    Factor("tail", "text", ("spring", "summer", "autumn", "winter")),
)
"""The factors by name. `position` is the quadrant of the first copy; further copies follow clockwise."""

SHARED, IMAGE_ONLY, TEXT_ONLY = (
    tuple(f.name for f in FACTORS.values() if f.sharing == sharing) for sharing in ("shared", "image", "text")
)

TILTS = 3
GRAIN_FIELDS = 64
SYNONYM_PROBABILITY = 0.3
SAID = tuple(f"said_{name}" for name in SHARED)
"""Nuisances of the caption: 1 if the shared factor of that name is expressed by its synonym."""

_Values = Int[np.ndarray, " scene"]
_STREAM: Mapping[str, int] = {name: n for n, name in enumerate((*FACTORS, "tilt", "field", *SAID))}
_STREAMS_PER_SEED = 64


@dataclass(frozen=True)
class Scenes:
    """Scenes as columns: the value of each factor and nuisance for each scene."""

    values: Mapping[str, _Values]

    def __len__(self) -> int:
        return len(self.values["shape"])

    def __getitem__(self, name: str) -> _Values:
        return self.values[name]

    def rows(self, which: slice | Int[np.ndarray, " chosen"]) -> "Scenes":
        """Return some of the scenes, by slice or by index."""
        return Scenes({name: column[which] for name, column in self.values.items()})

    def replaced(self, **values: int | _Values) -> "Scenes":
        """Return the same scenes with whole columns set to other values.

        >>> draw_scenes(3).replaced(colour=0)["colour"]
        array([0, 0, 0])
        """
        for name in values:
            if name not in self.values:
                raise unknown_name("factor", name, self.values)
        return Scenes({**self.values, **{k: np.full(len(self), 0) + v for k, v in values.items()}})


def draw_scenes(n: int, *, seed: int = 0, start: int = 0) -> Scenes:
    """Return scenes `start` to `start + n` of the endless sequence that belongs to `seed`.

    >>> later = draw_scenes(2, seed=1, start=3)
    >>> bool((later["shape"] == draw_scenes(5, seed=1)["shape"][3:]).all())
    True

    Raises:
        InputError: `n`, `start` or `seed` is negative.
    """
    if min(n, start, seed) < 0:
        raise InputError(
            expected="a number of scenes, a start and a seed that are not negative",
            found=f"n={n}, start={start}, seed={seed}",
            fix="count from 0",
        )
    index = np.arange(start, start + n, dtype=np.uint64)
    values = {name: _uniform(index, seed, name, len(factor.values)) for name, factor in FACTORS.items()}
    values["tilt"] = _uniform(index, seed, "tilt", TILTS)
    values["field"] = _uniform(index, seed, "field", GRAIN_FIELDS)
    for name in SAID:
        values[name] = (_draw(index, seed, name) < SYNONYM_PROBABILITY).astype(np.int64)
    return Scenes(values)


def _uniform(index: UInt64[np.ndarray, " scene"], seed: int, name: str, n_values: int) -> _Values:
    return (_draw(index, seed, name) * n_values).astype(np.int64)


def _draw(index: UInt64[np.ndarray, " scene"], seed: int, name: str) -> np.ndarray:
    return hashed_uniform(index, seed * _STREAMS_PER_SEED + _STREAM[name])
