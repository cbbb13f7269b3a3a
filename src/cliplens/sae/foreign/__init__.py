"""Dictionaries made elsewhere, opened as SAELens SAEs. One file per layout; tensors only."""

from cliplens.sae.foreign.opening import layouts as layouts
from cliplens.sae.foreign.opening import open_foreign as open_foreign
