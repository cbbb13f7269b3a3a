"""Iso-energy aligned dictionaries: a term rewards similar codes of an image and its caption.

    loss = reconstruction - align_coefficient * mean over pairs of cos(I', T')

I' and T' are the codes of a pair without the largest coordinate of I and that of T, so that one strong latent does not
dominate. Dhimoila et al., arXiv 2602.06218, on top of TopK. Their coefficients, 1e-4 to 4e-4, belong to an error
averaged over inputs. SAELens sums the error, so here they are multiplied by `d_in`. Saved as stock TopK.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from cliplens.sae.architectures.paired import halves, register_training
from cliplens.sae.architectures.paired_topk import PairedTopKTrainingSAE, PairedTopKTrainingSAEConfig


@dataclass
class IsoEnergyTrainingSAEConfig(PairedTopKTrainingSAEConfig):
    """TopK with the alignment term."""

    align_coefficient: float = 2e-4

    @classmethod
    def architecture(cls) -> str:
        """Return its name in SAELens' registry."""
        return "iso_energy"


class IsoEnergyTrainingSAE(PairedTopKTrainingSAE):
    """TopK with the alignment term, trained on paired batches."""

    cfg: IsoEnergyTrainingSAEConfig

    def pair_losses(self, codes: Float[Tensor, "batch d_sae"]) -> dict[str, Tensor]:
        """Return the alignment loss, negative where codes agree."""
        return {"alignment_loss": -self.cfg.align_coefficient * self.cfg.d_in * alignment(codes)}


def alignment(codes: Float[Tensor, "batch d_sae"]) -> Float[Tensor, ""]:
    """Return the mean cosine of paired codes without either's largest coordinate, in [-1, 1]; 0 for empty pairs."""
    image, text = halves(codes)
    largest = torch.stack([image.argmax(dim=-1), text.argmax(dim=-1)], dim=-1)
    rest = torch.ones_like(image).scatter(-1, largest, 0.0)
    return F.cosine_similarity(image * rest, text * rest, dim=-1).mean()


register_training("iso_energy", IsoEnergyTrainingSAE, IsoEnergyTrainingSAEConfig)
