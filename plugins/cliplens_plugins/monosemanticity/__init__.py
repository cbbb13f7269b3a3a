"""Monosemanticity: whether the samples a latent fires on are alike, to an encoder that is not the one studied."""

from cliplens_plugins.monosemanticity.embsim import embsim as embsim
from cliplens_plugins.monosemanticity.embsim_metric import EmbSimMetric as EmbSimMetric
from cliplens_plugins.monosemanticity.metric import MonosemanticityMetric as MonosemanticityMetric
from cliplens_plugins.monosemanticity.mms import mms as mms
from cliplens_plugins.monosemanticity.ms import ms as ms
from cliplens_plugins.monosemanticity.precomputed import PrecomputedJudge as PrecomputedJudge
from cliplens_plugins.monosemanticity.winrate import winrate as winrate
