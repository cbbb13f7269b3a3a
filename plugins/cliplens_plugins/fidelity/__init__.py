"""Measure the fidelity of a dictionary.

`FidelityMetric` computes explained variance, L0 and dead latents during a run. `downstream` measures the tasks of the
model with the dictionary spliced in. `stability` compares dictionaries of different seeds.
"""

from typing import TYPE_CHECKING

from cliplens.deprecation import deprecated_names
from cliplens.lazy import export_lazily

if TYPE_CHECKING:
    from cliplens_plugins.fidelity.histogram import HistogramMetric as HistogramMetric
    from cliplens_plugins.fidelity.metric import FidelityMetric as FidelityMetric
    from cliplens_plugins.fidelity.neighbours import neighbours as neighbours
    from cliplens_plugins.fidelity.stability import duplicates as duplicates
    from cliplens_plugins.fidelity.stability import stability as stability

_MOVED = ("contrastive_loss", "retrieval", "zero_shot")
__getattr__ = deprecated_names(
    __name__, {**{name: f"cliplens.tasks:{name}" for name in _MOVED}, "matched": "cliplens.analysis:matched"}
)

export_lazily(__name__)
