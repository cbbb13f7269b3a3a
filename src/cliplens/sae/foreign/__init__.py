"""Convert dictionaries of other projects to SAELens SAEs, one file per layout. Only tensors are read."""

from cliplens.sae.foreign.opening import convert as convert
from cliplens.sae.foreign.opening import layouts as layouts
