"""Read the factors of images of the embedded world, to score steering."""

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

WEIGHTS = Path(__file__).parent / "assets" / "world_factor_reader.safetensors"


class WorldReader(AttributeReader):
    """Reads the factors of images of the world with a network that is part of the package.

    Set the environment variable `CLIPLENS_JUDGE` to the path of other weights to use them instead.
    """

    name: ClassVar[str] = "world"

    @property
    def values(self) -> Mapping[str, tuple[str, ...]]:
        """Return the possible values of each visible factor."""
        return {name: FACTORS[name].values for name in FACTORS_READ}

    @property
    def ready(self) -> bool:
        """Return whether the weights exist; otherwise they are trained on first use."""
        return weights_file().is_file()

    def read(self, images: Sequence[Image.Image]) -> Mapping[str, Int[np.ndarray, " image"]]:
        """Return, for each factor, the index of the value that each image shows."""
        return self._network.read(images)

    @cached_property
    def _network(self) -> WorldFactorReader:
        return load_factor_reader(weights_file())


def weights_file() -> Path:
    """Return the path of the weights: `CLIPLENS_JUDGE`, else the file in the package."""
    named = os.environ.get("CLIPLENS_JUDGE")
    return Path(named) if named else WEIGHTS
