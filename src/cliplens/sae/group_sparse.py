"""Group-sparse dictionaries: an image and its caption are asked to fire the same latents.

    loss = reconstruction + group_coefficient * mean over pairs of sum_k sqrt(I_k^2 + T_k^2)

Kaushik et al., arXiv 2601.20028, on top of TopK. The square root is cheapest where both codes share their latents.
Codes are those of unit-norm decoder rows, and the reconstruction error is SAELens' sum over inputs. Saved as stock
TopK.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from sae_lens.saes.sae import SAEConfig, TrainStepInput
from sae_lens.saes.topk_sae import TopKSAEConfig, TopKTrainingSAE, TopKTrainingSAEConfig
from torch import Tensor

from cliplens.sae.paired import NeedsPairs, halves, register_training


@dataclass
class GroupSparseTrainingSAEConfig(TopKTrainingSAEConfig, NeedsPairs):
    """TopK with the group penalty."""

    group_coefficient: float = 0.05

    @classmethod
    def architecture(cls) -> str:
        """Its name in SAELens' registry."""
        return "group_sparse"

    def get_inference_config_class(self) -> type[SAEConfig]:
        """Saved as stock TopK."""
        return TopKSAEConfig


class GroupSparseTrainingSAE(TopKTrainingSAE):
    """Trained by the stock trainer on paired batches."""

    cfg: GroupSparseTrainingSAEConfig

    def calculate_aux_loss(
        self,
        step_input: TrainStepInput,
        feature_acts: Float[Tensor, "batch d_sae"],
        hidden_pre: Float[Tensor, "batch d_sae"],
        sae_out: Float[Tensor, "batch d_in"],
    ) -> dict[str, Tensor]:
        """TopK's own auxiliary loss, and the group penalty."""
        losses = super().calculate_aux_loss(step_input, feature_acts, hidden_pre, sae_out)
        return {**losses, "group_loss": self.cfg.group_coefficient * group_penalty(feature_acts)}


def group_penalty(codes: Float[Tensor, "batch d_sae"]) -> Float[Tensor, ""]:
    """Mean over pairs of sum_k sqrt(I_k^2 + T_k^2), at least 0."""
    pairs = torch.stack(halves(codes))
    return torch.linalg.vector_norm(pairs, dim=0).sum(dim=-1).mean()


register_training("group_sparse", GroupSparseTrainingSAE, GroupSparseTrainingSAEConfig)
