"""Masked group-sparse dictionaries: each pair may choose its latents from a random part of the dictionary, both sides
the same.

The masked variant of Kaushik et al., arXiv 2601.20028. `mask_probability` is 0.2 there; the paper does not say whether
that part is kept or dropped. `mask_mode` "drop" (default) masks each latent with that probability; "keep" masks all
others. Masks are drawn per pair, in training only, from torch's generator. Saved as stock TopK.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cliplens.sae.architectures.group_sparse import GroupSparseTrainingSAE, GroupSparseTrainingSAEConfig
from cliplens.sae.architectures.paired import halves, register_training


@dataclass
class MaskedGroupSparseTrainingSAEConfig(GroupSparseTrainingSAEConfig):
    """Group-sparse, with one mask for the image and the caption of a pair."""

    mask_probability: float = 0.2
    mask_mode: Literal["drop", "keep"] = "drop"

    @classmethod
    def architecture(cls) -> str:
        """Return its name in SAELens' registry."""
        return "masked_group_sparse"


class MaskedGroupSparseTrainingSAE(GroupSparseTrainingSAE):
    """Group-sparse with masks, trained on paired batches."""

    cfg: MaskedGroupSparseTrainingSAEConfig

    def encode_with_hidden_pre(
        self, x: Float[Tensor, "*batch d_in"]
    ) -> tuple[Float[Tensor, "*batch d_sae"], Float[Tensor, "*batch d_sae"]]:
        """Encode with TopK over the unmasked latents of each pair; over all latents outside training."""
        if not (self.training and torch.is_grad_enabled()):
            return super().encode_with_hidden_pre(x)
        hidden_pre = self.hook_sae_acts_pre(self.process_sae_in(x) @ self.W_enc + self.b_enc)
        if self.cfg.rescale_acts_by_decoder_norm:
            hidden_pre = hidden_pre * self.W_dec.norm(dim=-1)
        allowed = hidden_pre.masked_fill(self.hidden(hidden_pre), 0.0)
        return self.hook_sae_acts_post(self.activation_fn(allowed)), hidden_pre

    def hidden(self, rows: Float[Tensor, "batch d_sae"]) -> Bool[Tensor, "batch d_sae"]:
        """Return a random mask of the latents of each row, the same for an image and its caption."""
        return hidden_latents(rows, self.cfg.mask_probability, self.cfg.mask_mode)


def hidden_latents(
    rows: Float[Tensor, "batch d_sae"], probability: float, mode: Literal["drop", "keep"]
) -> Bool[Tensor, "batch d_sae"]:
    """Return a random mask of the latents of each row of a paired batch, the same for an image and its caption."""
    drawn = torch.rand(halves(rows)[0].shape, device=rows.device) < probability
    hidden = drawn if mode == "drop" else ~drawn
    return torch.cat([hidden, hidden])


register_training("masked_group_sparse", MaskedGroupSparseTrainingSAE, MaskedGroupSparseTrainingSAEConfig)
