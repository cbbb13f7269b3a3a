"""Measure in which modality each latent fires, with confidence intervals.

`mds(image_codes, text_codes)` scores every latent. `classify` and `classify_fixed` turn scores into classes. The
metrics compute the same in one streaming pass, for the latent table.
"""

from typing import TYPE_CHECKING

from cliplens.lazy import export_lazily

if TYPE_CHECKING:
    from cliplens_plugins.modality.bridge import BridgeMetric as BridgeMetric
    from cliplens_plugins.modality.bridge import bridge as bridge
    from cliplens_plugins.modality.causal import causal_effect as causal_effect
    from cliplens_plugins.modality.causal_splice import causal_effects as causal_effects
    from cliplens_plugins.modality.classes import class_counts as class_counts
    from cliplens_plugins.modality.classes import classify as classify
    from cliplens_plugins.modality.classes import classify_fixed as classify_fixed
    from cliplens_plugins.modality.cofiring import cofiring as cofiring
    from cliplens_plugins.modality.evaluator import ModalityEvaluator as ModalityEvaluator
    from cliplens_plugins.modality.evaluator import to_tensorboard as to_tensorboard
    from cliplens_plugins.modality.gap import modality_gap as modality_gap
    from cliplens_plugins.modality.gap import without_latents as without_latents
    from cliplens_plugins.modality.gap_metric import GapMetric as GapMetric
    from cliplens_plugins.modality.ground_truth import GroundTruthMetric as GroundTruthMetric
    from cliplens_plugins.modality.information import counts_of as counts_of
    from cliplens_plugins.modality.information import decompose as decompose
    from cliplens_plugins.modality.information_metric import InformationMetric as InformationMetric
    from cliplens_plugins.modality.mds import VARIANTS as VARIANTS
    from cliplens_plugins.modality.mds import mds as mds
    from cliplens_plugins.modality.metric import ModalityMetric as ModalityMetric

export_lazily(__name__)
