"""Stock TopK, trained faster: the same losses and the same steps, computed from the k firing latents alone.

Stock TopK pays for dense matrix products over all `d_sae` latents: encode, decode, and three more in the backward pass.
Only the first is needed. The rest touch k latents per row:

    reconstruction   a bag of k decoder rows per sample
    decoder gradient a bag of the samples in which a latent fired, per latent
    encoder gradient likewise, of inputs
    b_dec gradient   minus the encoder applied to b_enc's gradient: one vector

Dead latents are revived as in stock TopK, by products over the dead columns only. Where a decoder norm rescales the
selection it cancels in every value that is kept, so no gradient passes through it. Saved as stock TopK.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from sae_lens.saes.sae import SAEConfig, TrainStepInput, TrainStepOutput
from sae_lens.saes.topk_sae import TopKSAEConfig, TopKTrainingSAE, TopKTrainingSAEConfig
from torch import Tensor
from torch.autograd.function import FunctionCtx

from cliplens.sae.architectures.paired import register_training


@dataclass
class FastTopKTrainingSAEConfig(TopKTrainingSAEConfig):
    """Stock TopK's fields."""

    @classmethod
    def architecture(cls) -> str:
        """Return its name in SAELens' registry."""
        return "fast_topk"

    def get_inference_config_class(self) -> type[SAEConfig]:
        """Return stock TopK's config: it is saved as stock TopK."""
        return TopKSAEConfig


class FastTopKTrainingSAE(TopKTrainingSAE):
    """Stock TopK with a training step of its own."""

    cfg: FastTopKTrainingSAEConfig

    def initialize_weights(self) -> None:
        """As stock; the encoder lies in memory latent by latent, as its gradient is made."""
        super().initialize_weights()
        self.W_enc.data = self.W_enc.data.T.contiguous().T

    def process_state_dict_for_saving(self, state_dict: dict[str, Any]) -> None:
        """Safetensors stores row by row."""
        state_dict["W_enc"] = state_dict["W_enc"].contiguous()

    def training_forward_pass(self, step_input: TrainStepInput) -> TrainStepOutput:
        """The losses of stock TopK; `hidden_pre` holds the k firing latents alone."""
        x = step_input.sae_in
        dead = step_input.dead_neuron_mask
        dead_at = None if dead is None else dead.nonzero(as_tuple=True)[0]
        norm = self.W_dec.detach().norm(dim=-1) if self.cfg.rescale_acts_by_decoder_norm else None
        read = self.run_time_activation_norm_fn_in(self.hook_sae_input(x.to(self.dtype)))
        b_in = self.b_dec if self.cfg.apply_b_dec_to_input else None
        values, at, dead_pre, order = _Encode.apply(read, self.W_enc, self.b_enc, b_in, norm, self.cfg.k, dead_at)
        out = self.run_time_activation_norm_fn_out(_Decode.apply(values, at, order, self.W_dec) + self.b_dec)
        losses = {
            "mse_loss": self.mse_loss_fn(out, x).sum(dim=-1).mean(),
            "auxiliary_reconstruction_loss": self._revival(x, out, dead_pre, dead_at, norm),
        }
        codes = values.detach() if norm is None else values.detach() * norm[at]
        return TrainStepOutput(
            sae_in=x,
            sae_out=out,
            feature_acts=codes.new_zeros(len(x), self.cfg.d_sae).scatter_(-1, at, codes),
            hidden_pre=codes,
            loss=losses["mse_loss"] + losses["auxiliary_reconstruction_loss"],
            losses=losses,
        )

    def _revival(
        self,
        x: Float[Tensor, "batch d_in"],
        out: Float[Tensor, "batch d_in"],
        dead_pre: Float[Tensor, "batch dead"],
        dead_at: Int[Tensor, " dead"] | None,
        norm: Float[Tensor, " d_sae"] | None,
    ) -> Float[Tensor, ""]:
        """Stock TopK's auxiliary loss: the strongest dead latents reconstruct what the living ones leave."""
        if dead_at is None or len(dead_at) == 0:
            return out.new_tensor(0.0)
        half = x.shape[-1] // 2
        scale = min(len(dead_at) / half, 1.0)
        chosen = dead_pre * _strongest(
            dead_pre.detach(), min(half, len(dead_at)), None if norm is None else norm[dead_at]
        )
        residual = (x - out).detach()
        error = (chosen @ self.W_dec.index_select(0, dead_at) - residual).pow(2).sum(dim=-1).mean()
        return self.cfg.aux_loss_coefficient * scale * error


class _Encode(torch.autograd.Function):
    """The k firing latents of each row, their unscaled values, and the pre-activations of the dead latents."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Float[Tensor, "batch d_in"],
        W_enc: Float[Tensor, "d_in d_sae"],
        b_enc: Float[Tensor, " d_sae"],
        b_in: Float[Tensor, " d_in"] | None,
        norm: Float[Tensor, " d_sae"] | None,
        k: int,
        dead_at: Int[Tensor, " dead"] | None,
    ) -> tuple[Float[Tensor, "batch k"], Int[Tensor, "batch k"], Float[Tensor, "batch dead"], Int[Tensor, " firing"]]:
        centred = x if b_in is None else x - b_in
        pre = torch.addmm(b_enc, centred, W_enc)
        at = (pre if norm is None else pre * norm).topk(k, dim=-1, sorted=False).indices
        values = pre.gather(-1, at).relu_()
        dead_pre = pre.new_zeros(len(pre), 0) if dead_at is None else pre.index_select(1, dead_at)
        order = at.flatten().argsort()
        ctx.save_for_backward(centred, W_enc, values, at, dead_at, order)
        ctx.applies_b_dec = b_in is not None
        ctx.mark_non_differentiable(at, order)
        return values, at, dead_pre, order

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        centred, W_enc, values, at, dead_at, order = ctx.saved_tensors
        of_values, _, of_dead, _ = gradients
        of_pre = of_values * (values > 0)
        by_latent = _bags_of_rows(centred, at, order, of_pre, W_enc.shape[1])
        of_b_enc = of_pre.new_zeros(W_enc.shape[1]).index_add_(0, at.flatten(), of_pre.flatten())
        if dead_at is not None and len(dead_at):
            by_latent.index_add_(0, dead_at, of_dead.T @ centred)
            of_b_enc.index_add_(0, dead_at, of_dead.sum(0))
        of_b_in = -(W_enc @ of_b_enc) if ctx.applies_b_dec else None
        return None, by_latent.T, of_b_enc, of_b_in, None, None, None


class _Decode(torch.autograd.Function):
    """A bag of decoder rows per sample."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        values: Float[Tensor, "batch k"],
        at: Int[Tensor, "batch k"],
        order: Int[Tensor, " firing"],
        W_dec: Float[Tensor, "d_sae d_in"],
    ) -> Float[Tensor, "batch d_in"]:
        ctx.save_for_backward(values, at, order, W_dec)
        return F.embedding_bag(at, W_dec, mode="sum", per_sample_weights=values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        values, at, order, W_dec = ctx.saved_tensors
        (of_out,) = gradients
        return _dots(of_out, W_dec, at), None, None, _bags_of_rows(of_out, at, order, values, len(W_dec))


def _dots(
    rows: Float[Tensor, "batch d_in"], W_dec: Float[Tensor, "d_sae d_in"], at: Int[Tensor, "batch k"]
) -> Float[Tensor, "batch k"]:
    """The product of each row with the decoder rows that fired in it: torch's own backward of a weighted bag."""
    starts = torch.arange(0, at.numel(), at.shape[1], device=at.device)
    bags = torch.arange(len(at), device=at.device).repeat_interleave(at.shape[1])
    dots = torch.ops.aten._embedding_bag_per_sample_weights_backward(rows, W_dec, at.flatten(), starts, bags, 0)
    return dots.view(at.shape)


def _bags_of_rows(
    rows: Float[Tensor, "batch d_in"],
    at: Int[Tensor, "batch k"],
    order: Int[Tensor, " firing"],
    weights: Float[Tensor, "batch k"],
    d_sae: int,
) -> Float[Tensor, "d_sae d_in"]:
    """For each latent, the weighted sum of the rows it fired in. `order` sorts the firings by latent."""
    counts = torch.bincount(at.flatten(), minlength=d_sae)
    fired_in = order.div(at.shape[1], rounding_mode="floor")
    starts = counts.cumsum(0) - counts
    return F.embedding_bag(fired_in, rows, starts, mode="sum", per_sample_weights=weights.flatten()[order])


def _strongest(
    pre: Float[Tensor, "batch dead"], k: int, norm: Float[Tensor, " dead"] | None
) -> Bool[Tensor, "batch dead"] | Float[Tensor, "batch dead"]:
    """1 at the k largest of each row, 0 elsewhere."""
    if k == pre.shape[1]:
        return torch.ones_like(pre)
    ranked = pre if norm is None else pre * norm
    return torch.zeros_like(pre).scatter_(-1, ranked.topk(k, dim=-1, sorted=False).indices, 1.0)


register_training("fast_topk", FastTopKTrainingSAE, FastTopKTrainingSAEConfig)
