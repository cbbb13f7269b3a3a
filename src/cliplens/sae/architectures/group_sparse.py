"""Group-sparse dictionaries: a penalty makes an image and its caption fire the same latents.

    loss = reconstruction + group_coefficient * mean over pairs of sum_k sqrt(I_k^2 + T_k^2)

Kaushik et al., arXiv 2601.20028, on top of TopK. The penalty is smallest if both codes use the same latents. Codes are
those of unit-norm decoder rows; the reconstruction error is SAELens' sum over inputs. Saved as stock TopK.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from cliplens.sae.architectures.paired import halves, register_training
from cliplens.sae.architectures.paired_topk import PairedTopKTrainingSAE, PairedTopKTrainingSAEConfig


@dataclass
class GroupSparseTrainingSAEConfig(PairedTopKTrainingSAEConfig):
    """TopK with the group penalty."""

    group_coefficient: float = 0.05

    @classmethod
    def architecture(cls) -> str:
        """Return its name in SAELens' registry."""
        return "group_sparse"


class GroupSparseTrainingSAE(PairedTopKTrainingSAE):
    """TopK with the group penalty, trained on paired batches."""

    cfg: GroupSparseTrainingSAEConfig

    def pair_losses(self, codes: Float[Tensor, "batch d_sae"]) -> dict[str, Tensor]:
        """Return the group penalty, at least 0."""
        return {"group_loss": self.cfg.group_coefficient * group_penalty(codes)}


def group_penalty(codes: Float[Tensor, "batch d_sae"]) -> Float[Tensor, ""]:
    """Return the mean over pairs of sum_k sqrt(I_k^2 + T_k^2), at least 0."""
    pairs = torch.stack(halves(codes))
    return torch.linalg.vector_norm(pairs, dim=0).sum(dim=-1).mean()


register_training("group_sparse", GroupSparseTrainingSAE, GroupSparseTrainingSAEConfig)
