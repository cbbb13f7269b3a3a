"""Hold the objects of a run that has a dictionary."""

from dataclasses import dataclass

from cliplens.contracts import Judge
from cliplens.hooked import HookedCLIP
from cliplens.pairs import Pairs
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
