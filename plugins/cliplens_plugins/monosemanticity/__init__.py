"""Monosemanticity: whether the samples a latent fires on are alike, to an encoder that is not the one studied."""

from cliplens_plugins.monosemanticity.metric import MonosemanticityMetric as MonosemanticityMetric
from cliplens_plugins.monosemanticity.ms import ms as ms
