"""The attribute reader of the embedded world: the contract that steering is scored through."""

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
    """Reads the factors of a picture of the world with the network that ships here.

    The environment variable `CLIPLENS_JUDGE` names another file of weights, for a network trained anew.
    """

    name: ClassVar[str] = "world"

    @property
    def values(self) -> Mapping[str, tuple[str, ...]]:
        """Return the values of each factor a picture shows."""
        return {name: FACTORS[name].values for name in FACTORS_READ}

    @property
    def ready(self) -> bool:
        """Return whether the weights are there; otherwise they are trained on first use."""
        return weights_file().is_file()

    def read(self, images: Sequence[Image.Image]) -> Mapping[str, Int[np.ndarray, " image"]]:
        """Return the index of the value each picture shows, per factor."""
        return self._network.read(images)

    @cached_property
    def _network(self) -> WorldFactorReader:
        return load_factor_reader(weights_file())


def weights_file() -> Path:
    """Return the file of weights: `CLIPLENS_JUDGE`, or the one that ships here."""
    named = os.environ.get("CLIPLENS_JUDGE")
    return Path(named) if named else WEIGHTS
