"""SAELens' TopK with a faster training step and the same losses. It is saved as stock TopK.

`sparse_training` holds the step, `sparse_step` its forward and backward passes.
"""

from dataclasses import dataclass

from jaxtyping import Int
from sae_lens.saes.sae import SAEConfig
from sae_lens.saes.topk_sae import TopKSAEConfig, TopKTrainingSAEConfig
from torch import Tensor

from cliplens.sae.architectures.paired import register_training
from cliplens.sae.architectures.ranking import Ranked, strongest_of_rows
from cliplens.sae.architectures.sparse_training import SparseStep


@dataclass
class FastTopKTrainingSAEConfig(TopKTrainingSAEConfig):
    """The fields of SAELens' TopK."""

    @classmethod
    def architecture(cls) -> str:
        """Return its name in SAELens' registry."""
        return "fast_topk"

    def get_inference_config_class(self) -> type[SAEConfig]:
        """Return stock TopK's config: it is saved as stock TopK."""
        return TopKSAEConfig


class FastTopKTrainingSAE(SparseStep):
    """SAELens' TopK with a training step over the firing latents only."""

    cfg: FastTopKTrainingSAEConfig

    def choose(self, ranked: Ranked) -> Int[Tensor, " firing"]:
        """Return the flat indices of the k largest values of each row, sorted."""
        return strongest_of_rows(ranked, self.cfg.k)


register_training("fast_topk", FastTopKTrainingSAE, FastTopKTrainingSAEConfig)
