"""Attribute image-text similarities to latents, heads and blocks, and score attention patterns of heads."""

from cliplens.analysis.heads import attribute_heads as attribute_heads
from cliplens.analysis.latent_pairs import LatentPairs as LatentPairs
from cliplens.analysis.latent_pairs import attribute_latent_pairs as attribute_latent_pairs
from cliplens.analysis.latents import attribute_latents as attribute_latents
from cliplens.analysis.match import Match as Match
from cliplens.analysis.match import attribute_match as attribute_match
from cliplens.analysis.parts import Attribution as Attribution
from cliplens.analysis.patterns import PATTERNS as PATTERNS
from cliplens.analysis.patterns import head_scores as head_scores
