"""What a run has in hand once its dictionary is there."""

from dataclasses import dataclass

from cliplens.hooked import HookedCLIP
from cliplens.pairs import Pairs
from cliplens.runfolder import RunFolder
from cliplens.sae import Dictionary
from cliplens.settings import Settings
from cliplens.store import Cache


@dataclass(frozen=True)
class Parts:
    """The model, the pairs, their activations, the dictionary, and what was asked."""

    clip: HookedCLIP
    pairs: Pairs
    cache: Cache
    dictionary: Dictionary
    settings: Settings
    folder: RunFolder
