"""Convert dictionaries of other projects to SAELens SAEs. One file per layout; only tensors are read."""

from cliplens.sae.foreign.opening import convert as convert
from cliplens.sae.foreign.opening import layouts as layouts
