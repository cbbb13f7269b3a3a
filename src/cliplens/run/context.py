"""Hold the objects of a run that has a dictionary, and those that the runs of a sweep share."""

from dataclasses import dataclass

from cliplens.contracts import Judge
from cliplens.hooked import HookedCLIP
from cliplens.pairs import Pairs
from cliplens.run.memory import Memory
from cliplens.runfolder import RunFolder
from cliplens.sae import Dictionary
from cliplens.settings import Settings
from cliplens.store import Cache, Embeddings, Group


@dataclass(frozen=True)
class RunContext:
    """The model, pairs, activations, dictionary, settings, folder, process group and judge of a run."""

    clip: HookedCLIP | Embeddings
    pairs: Pairs
    cache: Cache
    dictionary: Dictionary
    settings: Settings
    folder: RunFolder
    group: Group
    judge: Judge | None = None
    memory: Memory | None = None
    """Values that the runs of a sweep share; None in a single run."""


@dataclass(frozen=True)
class Shared:
    """Activations that several runs read, and what these runs compute once."""

    root: RunFolder
    """The folder that holds the activations and the list of bad pairs."""
    cache: Cache
    """The activations, verified, by picture (`Cache.by_picture`)."""
    memory: Memory
