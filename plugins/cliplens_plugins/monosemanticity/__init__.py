"""Measure monosemanticity: the similarity, to an independent encoder, of the samples on which a latent fires."""

from typing import TYPE_CHECKING

from cliplens.lazy import export_lazily

if TYPE_CHECKING:
    from cliplens_plugins.monosemanticity.embsim import embsim as embsim
    from cliplens_plugins.monosemanticity.embsim_metric import EmbSimMetric as EmbSimMetric
    from cliplens_plugins.monosemanticity.metric import MonosemanticityMetric as MonosemanticityMetric
    from cliplens_plugins.monosemanticity.mms import mms as mms
    from cliplens_plugins.monosemanticity.ms import ms as ms
    from cliplens_plugins.monosemanticity.precomputed import PrecomputedJudge as PrecomputedJudge
    from cliplens_plugins.monosemanticity.winrate import winrate as winrate

export_lazily(__name__)
