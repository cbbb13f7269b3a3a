"""Non-negative contrastive learning (Wang et al., ICLR 2024) on the embeddings of both towers.

    u = ReLU(f_I W + b), v = ReLU(f_T W + b), rows brought to unit norm;  loss = symmetric InfoNCE of u and v

W and b are the *head*: the encoder of one modality. With `heads="shared"` (default) both modalities use the same head,
and the dictionary is saved as the stock "standard" architecture. With `heads="separate"` each modality has a head of
its own; the dictionary is saved as `ncl_heads`, and the two dictionaries in `image/` and `text/` are stock.

The loss does not reconstruct, but tools for dictionaries need a decoder. So a linear decoder is fitted too, without
gradient to the codes. As published, the loss has no term for dead latents.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from sae_lens.saes.sae import SAEConfig, SAEMetadata, TrainingSAE, TrainingSAEConfig, TrainStepInput, TrainStepOutput
from sae_lens.saes.standard_sae import StandardSAE, StandardSAEConfig
from torch import Tensor, nn

from cliplens.sae.architectures.paired import NeedsPairs, halves, register_inference, register_training
from cliplens.sae.building import build_modality
from cliplens.sites import Modality


@dataclass
class NCLHeadsSAEConfig(StandardSAEConfig):
    """Config of `NCLHeadsSAE`: two encoders and one decoder."""

    metadata: Any = field(default_factory=SAEMetadata)
    """SAELens passes a plain dict first."""

    @classmethod
    def architecture(cls) -> str:
        """Return its name in SAELens' registry."""
        return "ncl_heads"


class NCLHeadsSAE(StandardSAE):
    """A dictionary with one encoder per modality. `encode` uses that of images; `for_modality` returns a stock SAE."""

    def initialize_weights(self) -> None:
        """Initialise as stock, and add the encoder of captions."""
        super().initialize_weights()
        _add_text_head(self)

    def for_modality(self, modality: Modality) -> StandardSAE:
        """Return the SAE of one modality. It shares its weights."""
        W_enc, b_enc = (self.W_enc_text, self.b_enc_text) if modality == "text" else (self.W_enc, self.b_enc)
        state = {"W_enc": W_enc, "b_enc": b_enc, "W_dec": self.W_dec, "b_dec": self.b_dec}
        side: StandardSAE = build_modality(self, StandardSAE, StandardSAEConfig, state)
        return side


@dataclass
class NCLTrainingSAEConfig(TrainingSAEConfig, NeedsPairs):
    """Config of `NCLTrainingSAE`."""

    heads: Literal["shared", "separate"] = "shared"
    """"shared": one encoder for both modalities; "separate": one each."""
    temperature: float = 0.1
    """Temperature of the contrastive loss."""
    apply_b_dec_to_input: bool = False

    @classmethod
    def architecture(cls) -> str:
        """Return its name in SAELens' registry."""
        return "ncl"

    def get_inference_config_class(self) -> type[SAEConfig]:
        """Return the stock "standard" config for shared heads, else that of `ncl_heads`."""
        return StandardSAEConfig if self.heads == "shared" else NCLHeadsSAEConfig


class NCLTrainingSAE(TrainingSAE[NCLTrainingSAEConfig]):
    """Trains the encoders with the non-negative contrastive loss, on batches of pairs."""

    b_enc: nn.Parameter

    def initialize_weights(self) -> None:
        """Initialise as stock, with the text head equal to the image head."""
        super().initialize_weights()
        self.b_enc = nn.Parameter(torch.zeros(self.cfg.d_sae, dtype=self.dtype, device=self.device))
        if self.cfg.heads == "separate":
            _add_text_head(self)

    def get_coefficients(self) -> dict[str, Any]:
        """Return no coefficients: there is no penalty to schedule."""
        return {}

    def encode_with_hidden_pre(
        self, x: Float[Tensor, "batch d_in"]
    ) -> tuple[Float[Tensor, "batch d_sae"], Float[Tensor, "batch d_sae"]]:
        """Return the codes of images and captions, each by the encoder of its modality and a ReLU."""
        sae_in = self.process_sae_in(x)
        if self.cfg.heads == "separate":
            image, text = halves(sae_in)
            pre = torch.cat([image @ self.W_enc + self.b_enc, text @ self.W_enc_text + self.b_enc_text])
        else:
            pre = sae_in @ self.W_enc + self.b_enc
        pre = self.hook_sae_acts_pre(pre)
        return self.hook_sae_acts_post(pre.relu()), pre

    def training_forward_pass(self, step_input: TrainStepInput) -> TrainStepOutput:
        """Return the contrastive loss, to train the encoders, and the reconstruction error, to train the decoder."""
        codes, hidden_pre = self.encode_with_hidden_pre(step_input.sae_in)
        out = self.decode(codes.detach())
        losses = {
            "contrastive_loss": info_nce(codes, self.cfg.temperature),
            "mse_loss": self.mse_loss_fn(out, step_input.sae_in).sum(dim=-1).mean(),
        }
        return TrainStepOutput(
            sae_in=step_input.sae_in,
            sae_out=out,
            feature_acts=codes,
            hidden_pre=hidden_pre,
            loss=losses["contrastive_loss"] + losses["mse_loss"],
            losses=losses,
        )

    def calculate_aux_loss(
        self,
        step_input: TrainStepInput,
        feature_acts: Float[Tensor, "batch d_sae"],
        hidden_pre: Float[Tensor, "batch d_sae"],
        sae_out: Float[Tensor, "batch d_in"],
    ) -> dict[str, Tensor]:
        """Return no losses: `training_forward_pass` computes them."""
        return {}


def info_nce(codes: Float[Tensor, "batch d_sae"], temperature: float) -> Float[Tensor, ""]:
    """Return the symmetric InfoNCE of paired rows, normalised first, in nats; at chance, log of the number of pairs."""
    image, text = (F.normalize(side) for side in halves(codes))
    logits = image @ text.T / temperature
    own = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def _add_text_head(sae: Any) -> None:
    sae.W_enc_text = nn.Parameter(sae.W_enc.data.clone())
    sae.b_enc_text = nn.Parameter(sae.b_enc.data.clone())


register_inference("ncl_heads", NCLHeadsSAE, NCLHeadsSAEConfig)
register_training("ncl", NCLTrainingSAE, NCLTrainingSAEConfig)
