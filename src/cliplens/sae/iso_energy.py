"""Iso-energy aligned dictionaries: the codes of an image and its caption point the same way.

    loss = reconstruction - align_coefficient * mean over pairs of cos(I', T')

I' and T' are the codes of a pair without the coordinate where I is largest and the one where T is largest, so that one
strong latent does not carry the agreement. Dhimoila et al., arXiv 2602.06218, on top of TopK; their coefficients, 1e-4
to 4e-4, stand beside an error averaged over inputs, so here, where SAELens sums it, they are multiplied by `d_in`.
Saved as stock TopK.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from sae_lens.saes.sae import SAEConfig, TrainStepInput
from sae_lens.saes.topk_sae import TopKSAEConfig, TopKTrainingSAE, TopKTrainingSAEConfig
from torch import Tensor

from cliplens.sae.paired import NeedsPairs, halves, register_training


@dataclass
class IsoEnergyTrainingSAEConfig(TopKTrainingSAEConfig, NeedsPairs):
    """TopK with the alignment term."""

    align_coefficient: float = 2e-4

    @classmethod
    def architecture(cls) -> str:
        """Its name in SAELens' registry."""
        return "iso_energy"

    def get_inference_config_class(self) -> type[SAEConfig]:
        """Saved as stock TopK."""
        return TopKSAEConfig


class IsoEnergyTrainingSAE(TopKTrainingSAE):
    """Trained by the stock trainer on paired batches."""

    cfg: IsoEnergyTrainingSAEConfig

    def calculate_aux_loss(
        self,
        step_input: TrainStepInput,
        feature_acts: Float[Tensor, "batch d_sae"],
        hidden_pre: Float[Tensor, "batch d_sae"],
        sae_out: Float[Tensor, "batch d_in"],
    ) -> dict[str, Tensor]:
        """TopK's own auxiliary loss, and the alignment term (at most 0)."""
        losses = super().calculate_aux_loss(step_input, feature_acts, hidden_pre, sae_out)
        weight = self.cfg.align_coefficient * self.cfg.d_in
        return {**losses, "alignment_loss": -weight * alignment(feature_acts)}


def alignment(codes: Float[Tensor, "batch d_sae"]) -> Float[Tensor, ""]:
    """Mean cosine of paired codes without either's largest coordinate, in [-1, 1]; 0 for a pair left empty."""
    image, text = halves(codes)
    largest = torch.stack([image.argmax(dim=-1), text.argmax(dim=-1)], dim=-1)
    rest = torch.ones_like(image).scatter(-1, largest, 0.0)
    return F.cosine_similarity(image * rest, text * rest, dim=-1).mean()


register_training("iso_energy", IsoEnergyTrainingSAE, IsoEnergyTrainingSAEConfig)
