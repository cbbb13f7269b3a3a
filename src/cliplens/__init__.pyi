"""What `cliplens` exports, for type checkers and editors; each name is imported on first use."""

from cliplens.api import activations as activations
from cliplens.api import caption_dataset as caption_dataset
from cliplens.api import image_dataset as image_dataset
from cliplens.api import install as install
from cliplens.api import load as load
from cliplens.api import read_pairs as read_pairs
from cliplens.api import steer as steer
from cliplens.api import wrap as wrap
from cliplens.errors import CliplensError as CliplensError
from cliplens.hooked import HookedCLIP as HookedCLIP
from cliplens.records import LatentTable as LatentTable
from cliplens.records import Pair as Pair
from cliplens.sae import Dictionary as Dictionary
from cliplens.sites import Site as Site

__version__: str
__all__: list[str]
