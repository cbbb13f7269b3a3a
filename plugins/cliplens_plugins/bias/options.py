"""The options of a study of bias."""

from dataclasses import dataclass
from pathlib import Path

from cliplens_plugins.bias.methods import TOP
from cliplens_plugins.bias.study import DRAWS


@dataclass(frozen=True, kw_only=True)
class BiasOptions:
    """The options of a study of bias; those of `cliplens bias`."""

    data: str | None = None
    """NAME:FOLDER of a data set; None plants a bias on the world."""
    group: str | None = None
    """Attribute whose values are the groups; None takes the usual one of the data set."""
    target: str | None = None
    """Attribute to classify; None takes the usual one of the data set."""
    queries: Path | None = None
    """Text file with one sentence per line, to rank images by; None takes the target classes."""
    images: int = 2000
    """Largest number of training images, and of test images."""
    rate: float = 0.95
    """Rate of the planted bias, from 0 to 1."""
    pairs: int = 384
    """Number of scored pairs to measure retrieval on."""
    top: int = TOP
    """Number of latents that methods over latents edit."""
    controls: int = 3
    """Number of random sets of latents."""
    draws: int = DRAWS
    """Number of bootstrap samples of the sentences of each class, at most 30."""
    seed: int = 0
    """Seed of all random numbers."""
