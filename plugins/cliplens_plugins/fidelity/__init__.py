"""Fidelity: what the dictionary keeps of the activations, what the model can still do with it, and whether it lasts.

`FidelityMetric` streams the figures; `downstream` splices the dictionary into the model; `stability` compares seeds.
"""

from cliplens.deprecation import deprecated_names
from cliplens_plugins.fidelity.histogram import HistogramMetric as HistogramMetric
from cliplens_plugins.fidelity.metric import FidelityMetric as FidelityMetric
from cliplens_plugins.fidelity.neighbours import neighbours as neighbours
from cliplens_plugins.fidelity.stability import duplicates as duplicates
from cliplens_plugins.fidelity.stability import matched as matched
from cliplens_plugins.fidelity.stability import stability as stability

_MOVED = ("contrastive_loss", "retrieval", "zero_shot")
__getattr__ = deprecated_names(__name__, {name: f"cliplens.tasks:{name}" for name in _MOVED})
