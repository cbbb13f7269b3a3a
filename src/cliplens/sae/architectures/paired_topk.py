"""TopK on paired batches with further losses on the codes of a pair; saved as stock TopK."""

from abc import abstractmethod
from dataclasses import dataclass

from jaxtyping import Float
from sae_lens.saes.sae import SAEConfig, TrainStepInput
from sae_lens.saes.topk_sae import TopKSAEConfig, TopKTrainingSAE, TopKTrainingSAEConfig
from torch import Tensor

from cliplens.sae.architectures.paired import NeedsPairs


@dataclass
class PairedTopKTrainingSAEConfig(TopKTrainingSAEConfig, NeedsPairs):
    """TopK whose batches hold whole pairs."""

    def get_inference_config_class(self) -> type[SAEConfig]:
        """Return stock TopK's config: it is saved as stock TopK."""
        return TopKSAEConfig


class PairedTopKTrainingSAE(TopKTrainingSAE):
    """TopK with losses on pairs, trained on paired batches."""

    @abstractmethod
    def pair_losses(self, codes: Float[Tensor, "batch d_sae"]) -> dict[str, Tensor]:
        """Return the losses on the codes of a paired batch, by name; they are added to TopK's own."""

    def calculate_aux_loss(
        self,
        step_input: TrainStepInput,
        feature_acts: Float[Tensor, "batch d_sae"],
        hidden_pre: Float[Tensor, "batch d_sae"],
        sae_out: Float[Tensor, "batch d_in"],
    ) -> dict[str, Tensor]:
        """Return TopK's own auxiliary loss and the losses on pairs."""
        losses = super().calculate_aux_loss(step_input, feature_acts, hidden_pre, sae_out)
        return {**losses, **self.pair_losses(feature_acts)}
