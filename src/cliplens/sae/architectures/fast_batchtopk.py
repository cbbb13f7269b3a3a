"""SAELens' BatchTopK and Matryoshka BatchTopK, trained faster: the same losses, from the firing latents alone.

Both are saved as their stock classes are. `sparse_step` holds the passes.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from sae_lens.saes.batchtopk_sae import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
from sae_lens.saes.matryoshka_batchtopk_sae import (
    MatryoshkaBatchTopKTrainingSAE,
    MatryoshkaBatchTopKTrainingSAEConfig,
)
from sae_lens.saes.sae import TrainStepInput, TrainStepOutput
from torch import Tensor

from cliplens.sae.architectures.paired import register_training
from cliplens.sae.architectures.sparse_step import Decode, Encode


@dataclass
class FastBatchTopKTrainingSAEConfig(BatchTopKTrainingSAEConfig):
    """The fields of SAELens' BatchTopK."""

    k: int | float = 100

    @classmethod
    def architecture(cls) -> str:
        """Return its name in SAELens' registry."""
        return "fast_batchtopk"


@dataclass
class FastMatryoshkaBatchTopKTrainingSAEConfig(MatryoshkaBatchTopKTrainingSAEConfig):
    """The fields of SAELens' Matryoshka BatchTopK."""

    k: int | float = 100

    @classmethod
    def architecture(cls) -> str:
        """Return its name in SAELens' registry."""
        return "fast_matryoshka_batchtopk"


class _SparseBatchTopK(BatchTopKTrainingSAE):
    """The training step both classes share."""

    topk_threshold: Tensor

    def initialize_weights(self) -> None:
        """Initialise as stock does, with the encoder in memory latent by latent, as its gradient is made."""
        super().initialize_weights()
        self.W_enc.data = self.W_enc.data.T.contiguous().T

    def process_state_dict_for_saving(self, state_dict: dict[str, Any]) -> None:
        """Store the encoder row by row, as safetensors needs it."""
        super().process_state_dict_for_saving(state_dict)
        state_dict["W_enc"] = state_dict["W_enc"].contiguous()

    def training_forward_pass(self, step_input: TrainStepInput) -> TrainStepOutput:
        """Return the stock losses. `feature_acts` is a sparse tensor, and `hidden_pre` holds the firing latents alone.

        A matryoshka auxiliary loss and normalisation per row take the stock step.
        """
        if getattr(self.cfg, "use_matryoshka_aux_loss", False) or self.cfg.normalize_activations in _PER_ROW:
            return super().training_forward_pass(step_input)
        x, dead = step_input.sae_in, step_input.dead_neuron_mask
        dead_at = None if dead is None else dead.nonzero(as_tuple=True)[0]
        norm = self.W_dec.detach().norm(dim=-1) if self.cfg.rescale_acts_by_decoder_norm else None
        read = self.run_time_activation_norm_fn_in(self.hook_sae_input(x.to(self.dtype)))
        b_in = self.b_dec if self.cfg.apply_b_dec_to_input else None
        count = int(self.cfg.k * len(x))
        values, rows, at, dead_pre = Encode.apply(read, self.W_enc, self.b_enc, b_in, norm, count, dead_at)
        out = self.run_time_activation_norm_fn_out(Decode.apply(values, rows, at, self.W_dec, len(x)) + self.b_dec)
        losses = {
            "mse_loss": self._error(out, x),
            "auxiliary_reconstruction_loss": self._revival(x, out, dead_pre, dead_at, norm),
            **self._inner_losses(x, values, rows, at),
        }
        codes = values.detach() if norm is None else values.detach() * norm[at]
        self._follow_threshold(codes)
        size = (len(x), self.cfg.d_sae)
        return TrainStepOutput(
            sae_in=x,
            sae_out=out,
            feature_acts=torch.sparse_coo_tensor(
                torch.stack([rows, at]), codes, size, is_coalesced=True, check_invariants=False
            ),
            hidden_pre=codes,
            loss=torch.stack(list(losses.values())).sum(),
            losses=losses,
            metrics={"topk_threshold": self.topk_threshold},
        )

    def _error(self, out: Float[Tensor, "batch d_in"], x: Float[Tensor, "batch d_in"]) -> Float[Tensor, ""]:
        return self.mse_loss_fn(out, x).sum(dim=-1).mean()

    def _inner_losses(
        self,
        x: Float[Tensor, "batch d_in"],
        values: Float[Tensor, " firing"],
        rows: Int[Tensor, " firing"],
        at: Int[Tensor, " firing"],
    ) -> dict[str, Float[Tensor, ""]]:
        """Return the errors of reconstructions from the first latents alone; only the matryoshka class has some."""
        losses = {}
        for width in getattr(self.cfg, "matryoshka_widths", [])[:-1]:
            inner = Decode.apply(values * (at < width), rows, at, self.W_dec, len(x)) + self.b_dec
            losses[f"inner_mse_loss_{width}"] = self._error(self.run_time_activation_norm_fn_out(inner), x)
        return losses

    def _revival(
        self,
        x: Float[Tensor, "batch d_in"],
        out: Float[Tensor, "batch d_in"],
        dead_pre: Float[Tensor, "batch dead"],
        dead_at: Int[Tensor, " dead"] | None,
        norm: Float[Tensor, " d_sae"] | None,
    ) -> Float[Tensor, ""]:
        """Return the stock auxiliary loss: the strongest dead latents reconstruct the error of the living ones."""
        if dead_at is None or len(dead_at) == 0:
            return out.new_tensor(0.0)
        half = x.shape[-1] // 2
        scale = min(len(dead_at) / half, 1.0)
        chosen = dead_pre * _largest(dead_pre.detach(), half, None if norm is None else norm[dead_at])
        error = (chosen @ self.W_dec.index_select(0, dead_at) - (x - out).detach()).pow(2).sum(dim=-1).mean()
        return self.cfg.aux_loss_coefficient * scale * error

    @torch.no_grad()
    def _follow_threshold(self, codes: Float[Tensor, " firing"]) -> None:
        """Move the threshold towards the least positive activation, without waiting for the device."""
        least = torch.where(codes > 0, codes, torch.inf).min().to(self.topk_threshold.dtype)
        rate = self.cfg.topk_threshold_lr
        moved = (1 - rate) * self.topk_threshold + rate * least
        self.topk_threshold = torch.where(torch.isfinite(least), moved, self.topk_threshold)


_PER_ROW = ("constant_norm_rescale", "layer_norm")


def _largest(
    pre: Float[Tensor, "batch dead"], k: int, norm: Float[Tensor, " dead"] | None
) -> Bool[Tensor, "batch dead"] | Float[Tensor, "batch dead"]:
    """Return 1 at the k largest of each row, 0 elsewhere."""
    if k >= pre.shape[1]:
        return torch.ones_like(pre)
    ranked = pre if norm is None else pre * norm
    return torch.zeros_like(pre).scatter_(-1, ranked.topk(k, dim=-1, sorted=False).indices, 1.0)


class FastBatchTopKTrainingSAE(_SparseBatchTopK):
    """SAELens' BatchTopK with a training step over the firing latents alone."""

    cfg: FastBatchTopKTrainingSAEConfig


class FastMatryoshkaBatchTopKTrainingSAE(_SparseBatchTopK, MatryoshkaBatchTopKTrainingSAE):
    """SAELens' Matryoshka BatchTopK with a training step over the firing latents alone."""

    cfg: FastMatryoshkaBatchTopKTrainingSAEConfig


register_training("fast_batchtopk", FastBatchTopKTrainingSAE, FastBatchTopKTrainingSAEConfig)
register_training(
    "fast_matryoshka_batchtopk", FastMatryoshkaBatchTopKTrainingSAE, FastMatryoshkaBatchTopKTrainingSAEConfig
)
