"""The judge of the embedded world behind the contract scores are made through."""

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import Int
from PIL import Image

from cliplens.contracts import AttributeReader
from cliplens.world import FACTORS
from cliplens_plugins.generators.world_factor_reader import FACTORS_READ, WorldFactorReader, load_factor_reader


class WorldReader(AttributeReader):
    """Reads the factors of a picture of the world. The judge is trained on first use, about two minutes, and kept."""

    name: ClassVar[str] = "world"

    @property
    def values(self) -> Mapping[str, tuple[str, ...]]:
        """The factors a picture shows."""
        return {name: FACTORS[name].values for name in FACTORS_READ}

    def read(self, images: Sequence[Image.Image]) -> Mapping[str, Int[np.ndarray, " image"]]:
        """What each picture shows."""
        return self._judge.read(images)

    @cached_property
    def _judge(self) -> WorldFactorReader:
        return load_factor_reader(judge_file())


def judge_file() -> Path:
    """Where the trained judge is kept: CLIPLENS_JUDGE, or the user's cache folder."""
    named = os.environ.get("CLIPLENS_JUDGE")
    caches = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return Path(named) if named else caches / "cliplens" / "world-judge.safetensors"
