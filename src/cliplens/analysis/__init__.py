"""Attribute similarities to latents, heads and blocks, map latents on pictures, score heads, match dictionaries."""

from cliplens.analysis.explanation import Explanation as Explanation
from cliplens.analysis.explanation import drawn as drawn
from cliplens.analysis.explanation import explain_pair as explain_pair
from cliplens.analysis.explanation import grid_of as grid_of
from cliplens.analysis.explanation import words_of as words_of
from cliplens.analysis.heads import attribute_heads as attribute_heads
from cliplens.analysis.latent_pairs import LatentPairs as LatentPairs
from cliplens.analysis.latent_pairs import attribute_latent_pairs as attribute_latent_pairs
from cliplens.analysis.latents import attribute_latents as attribute_latents
from cliplens.analysis.maps import METHODS as METHODS
from cliplens.analysis.maps import MaskingTest as MaskingTest
from cliplens.analysis.maps import latent_map as latent_map
from cliplens.analysis.maps import masking_test as masking_test
from cliplens.analysis.maps import position_map as position_map
from cliplens.analysis.match import Match as Match
from cliplens.analysis.match import attribute_match as attribute_match
from cliplens.analysis.matched_latents import Matching as Matching
from cliplens.analysis.matched_latents import matched as matched
from cliplens.analysis.matched_latents import mixtures as mixtures
from cliplens.analysis.parts import Attribution as Attribution
from cliplens.analysis.patterns import PATTERNS as PATTERNS
from cliplens.analysis.patterns import head_scores as head_scores
