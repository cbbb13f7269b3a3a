"""VL-SAE (arXiv 2510.21323): one distance-based encoder for both modalities, and one decoder for each.

    a_j = 2 - | x/|x| - w_j/|w_j| |_2,  in [0, 2];  the k largest are kept

No stock SAELens architecture computes distances. So these dictionaries are saved as `two_decoders` (both modalities)
and, in `image/` and `text/`, as `distance_topk` (one modality). Stock `SAE.load_from_disk` opens them once
`cliplens.sae` is imported.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from sae_lens.saes.sae import SAE, SAEConfig, SAEMetadata, TrainingSAE, TrainingSAEConfig, TrainStepInput
from sae_lens.saes.topk_sae import TopK
from torch import Tensor, nn

from cliplens.sae.architectures.paired import NeedsPairs, halves, register_inference, register_training
from cliplens.sae.building import build_modality
from cliplens.sites import Modality

_TINY = 1e-6


def nearness(x: Float[Tensor, "*batch d_in"], W_enc: Float[Tensor, "d_in d_sae"]) -> Float[Tensor, "*batch d_sae"]:
    """Return 2 minus the distance between unit-norm rows of `x` and unit-norm columns of the encoder, in [0, 2]."""
    cosine = F.normalize(x, dim=-1) @ F.normalize(W_enc, dim=0)
    return 2 - (2 - 2 * cosine).clamp_min(_TINY).sqrt()


@dataclass
class DistanceTopKSAEConfig(SAEConfig):
    """Config of `DistanceTopKSAE`."""

    k: int = 100
    apply_b_dec_to_input: bool = False
    metadata: Any = field(default_factory=SAEMetadata)
    """SAELens passes a plain dict first."""

    @classmethod
    def architecture(cls) -> str:
        """Return its name in SAELens' registry."""
        return "distance_topk"


class DistanceTopKSAE(SAE[DistanceTopKSAEConfig]):
    """One modality of VL-SAE: the k nearest encoder directions of `x - b_in`, and a linear decoder."""

    def initialize_weights(self) -> None:
        """Initialise as stock, with an input bias of 0."""
        super().initialize_weights()
        self.b_in = nn.Parameter(torch.zeros(self.cfg.d_in, dtype=self.dtype, device=self.device))

    def encode(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_sae"]:
        """Return the nearness of the k nearest encoder directions, 0 elsewhere."""
        near = self.hook_sae_acts_pre(nearness(self.process_sae_in(x) - self.b_in, self.W_enc))
        return self.hook_sae_acts_post(TopK(self.cfg.k)(near))

    def decode(self, feature_acts: Float[Tensor, "*batch d_sae"]) -> Float[Tensor, "*batch d_in"]:
        """Return the linear reconstruction of the codes."""
        out = self.hook_sae_recons(feature_acts @ self.W_dec + self.b_dec)
        return self.reshape_fn_out(self.run_time_activation_norm_fn_out(out), self.d_head)

    def shifted(self, mean: Float[Tensor, " d_in"]) -> dict[str, Tensor]:
        """Return the tensors that change when a mean is folded in."""
        return {"b_in": self.b_in.double() + mean, "b_dec": self.b_dec.double() + mean}


@dataclass
class TwoDecodersSAEConfig(DistanceTopKSAEConfig):
    """Config of `TwoDecodersSAE`."""

    @classmethod
    def architecture(cls) -> str:
        """Return its name in SAELens' registry."""
        return "two_decoders"


class TwoDecodersSAE(DistanceTopKSAE):
    """Both modalities. `decode` uses the image decoder; `for_modality` returns one modality."""

    def initialize_weights(self) -> None:
        """Initialise as one modality, and add the text decoder."""
        super().initialize_weights()
        _add_text_decoder(self)

    def for_modality(self, modality: Modality) -> DistanceTopKSAE:
        """Return the SAE of one modality. It shares its weights."""
        W_dec, b_dec = (self.W_dec_text, self.b_dec_text) if modality == "text" else (self.W_dec, self.b_dec)
        state = {"W_enc": self.W_enc, "b_in": self.b_in, "W_dec": W_dec, "b_dec": b_dec}
        side: DistanceTopKSAE = build_modality(self, DistanceTopKSAE, DistanceTopKSAEConfig, state)
        return side

    def shifted(self, mean: Float[Tensor, " d_in"]) -> dict[str, Tensor]:
        """Raise NotImplementedError: means are folded into `for_modality(modality)`."""
        raise NotImplementedError("fold a mean into for_modality(modality)")


@dataclass
class TwoDecodersTrainingSAEConfig(TrainingSAEConfig, NeedsPairs):
    """VL-SAE, trained on paired batches."""

    k: int = 100
    apply_b_dec_to_input: bool = False

    @classmethod
    def architecture(cls) -> str:
        """Return its name in SAELens' registry."""
        return "two_decoders"


class TwoDecodersTrainingSAE(TrainingSAE[TwoDecodersTrainingSAEConfig]):
    """VL-SAE, trained on paired batches. Images use one decoder, captions the other."""

    def initialize_weights(self) -> None:
        """Initialise as stock, with the text decoder equal to the image decoder."""
        super().initialize_weights()
        self.b_in = nn.Parameter(torch.zeros(self.cfg.d_in, dtype=self.dtype, device=self.device), requires_grad=False)
        _add_text_decoder(self)

    def get_coefficients(self) -> dict[str, Any]:
        """Return no coefficients: there is no penalty to schedule."""
        return {}

    def encode_with_hidden_pre(
        self, x: Float[Tensor, "*batch d_in"]
    ) -> tuple[Float[Tensor, "*batch d_sae"], Float[Tensor, "*batch d_sae"]]:
        """Return the codes (nearness of the k nearest directions, 0 elsewhere) and the nearness of all directions."""
        near = self.hook_sae_acts_pre(nearness(self.process_sae_in(x), self.W_enc))
        return self.hook_sae_acts_post(TopK(self.cfg.k)(near)), near

    def decode(self, feature_acts: Float[Tensor, "batch d_sae"]) -> Float[Tensor, "batch d_in"]:
        """Decode the images' codes with one decoder and the captions' with the other."""
        image, text = halves(feature_acts)
        out = torch.cat([image @ self.W_dec + self.b_dec, text @ self.W_dec_text + self.b_dec_text])
        return self.run_time_activation_norm_fn_out(self.hook_sae_recons(out))

    def calculate_aux_loss(
        self,
        step_input: TrainStepInput,
        feature_acts: Float[Tensor, "batch d_sae"],
        hidden_pre: Float[Tensor, "batch d_sae"],
        sae_out: Float[Tensor, "batch d_in"],
    ) -> dict[str, Tensor]:
        """Return no further losses: only the reconstruction error is used."""
        return {}


def _add_text_decoder(sae: Any) -> None:
    sae.W_dec_text = nn.Parameter(sae.W_dec.data.clone())
    sae.b_dec_text = nn.Parameter(sae.b_dec.data.clone())


register_inference("distance_topk", DistanceTopKSAE, DistanceTopKSAEConfig)
register_inference("two_decoders", TwoDecodersSAE, TwoDecodersSAEConfig)
register_training("two_decoders", TwoDecodersTrainingSAE, TwoDecodersTrainingSAEConfig)
