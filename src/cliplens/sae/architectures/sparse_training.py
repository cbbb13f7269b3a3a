"""The training step that classes with a sparse step share: encode, reconstruct and revive dead latents."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from sae_lens.saes.sae import TrainStepInput, TrainStepOutput
from sae_lens.saes.topk_sae import TopKTrainingSAE
from torch import Tensor

from cliplens.sae.architectures.ranking import Ranked
from cliplens.sae.architectures.sparse_step import Decode, Encode

PER_ROW = ("constant_norm_rescale", "layer_norm")
"""Normalisations with a scale of its own for each row."""


@dataclass(frozen=True)
class Firings:
    """The firing latents of a batch, sorted by row."""

    values: Float[Tensor, " firing"]
    """Activations before rescaling by decoder norms; they carry the gradient of the encoder."""
    rows: Int[Tensor, " firing"]
    at: Int[Tensor, " firing"]
    """Index of the latent."""
    order: Int[Tensor, " firing"]
    """Sorts the firings by latent."""
    dead_pre: Float[Tensor, "batch dead"]
    """Pre-activations of the dead latents."""
    dead_at: Int[Tensor, " dead"] | None
    norm: Float[Tensor, " d_sae"] | None
    """Decoder norms, if activations are rescaled by them."""

    @property
    def codes(self) -> Float[Tensor, " firing"]:
        """The activations as the stock class defines them, without gradient."""
        values = self.values.detach()
        return values if self.norm is None else values * self.norm.index_select(0, self.at)

    def sparse(self, batch: int, d_sae: int) -> Float[Tensor, "batch d_sae"]:
        """Return the activations as a sparse tensor."""
        at = torch.stack([self.rows, self.at])
        return torch.sparse_coo_tensor(at, self.codes, (batch, d_sae), is_coalesced=True, check_invariants=False)


class SparseStep(TopKTrainingSAE):
    """A TopK class whose training step computes firing latents only. Subclasses choose them with `choose`."""

    @abstractmethod
    def choose(self, ranked: Ranked) -> Int[Tensor, " firing"]:
        """Return the flat indices of the firing latents of a batch, sorted."""

    def further_losses(self, x: Float[Tensor, "batch d_in"], fired: Firings) -> dict[str, Float[Tensor, ""]]:
        """Return the losses that a class adds to those of TopK, by name."""
        return {}

    def metrics(self, fired: Firings) -> dict[str, Tensor]:
        """Update what a class tracks during training, and return it by name."""
        return {}

    def training_forward_pass(self, step_input: TrainStepInput) -> TrainStepOutput:
        """Return the stock losses. `feature_acts` is sparse, and `hidden_pre` holds the firing latents only."""
        x = step_input.sae_in
        fired = self.firings(step_input)
        out = self.reconstruct(fired, fired.values, len(x))
        losses = {
            "mse_loss": self.error(out, x),
            "auxiliary_reconstruction_loss": self.revival_loss(x, out, fired),
            **self.further_losses(x, fired),
        }
        return TrainStepOutput(
            sae_in=x,
            sae_out=out,
            feature_acts=fired.sparse(len(x), self.cfg.d_sae),
            hidden_pre=fired.codes,
            loss=torch.stack(list(losses.values())).sum(),
            losses=losses,
            metrics=self.metrics(fired),
        )

    def initialize_weights(self) -> None:
        """Initialise as stock; store the encoder latent by latent in memory, like its gradient."""
        super().initialize_weights()
        self.W_enc.data = self.W_enc.data.T.contiguous().T

    def process_state_dict_for_saving(self, state_dict: dict[str, Any]) -> None:
        """Store the encoder row by row, as safetensors requires."""
        super().process_state_dict_for_saving(state_dict)
        state_dict["W_enc"] = state_dict["W_enc"].contiguous()

    def firings(self, step_input: TrainStepInput) -> Firings:
        """Return the firing latents of a batch."""
        dead = step_input.dead_neuron_mask
        dead_at = None if dead is None else dead.nonzero(as_tuple=True)[0]
        norm = self.W_dec.detach().norm(dim=-1) if self.cfg.rescale_acts_by_decoder_norm else None
        read = self.run_time_activation_norm_fn_in(self.hook_sae_input(step_input.sae_in.to(self.dtype)))
        b_in = self.b_dec if self.cfg.apply_b_dec_to_input else None
        values, rows, at, order, dead_pre = Encode.apply(read, self.W_enc, self.b_enc, b_in, norm, self.choose, dead_at)
        return Firings(values, rows, at, order, dead_pre, dead_at, norm)

    def reconstruct(self, fired: Firings, values: Float[Tensor, " firing"], batch: int) -> Float[Tensor, "batch d_in"]:
        """Return the reconstruction of a batch from `values` of its firing latents."""
        out = Decode.apply(values, fired.rows, fired.at, fired.order, self.W_dec, batch) + self.b_dec
        return self.run_time_activation_norm_fn_out(out)

    def error(self, out: Float[Tensor, "batch d_in"], x: Float[Tensor, "batch d_in"]) -> Float[Tensor, ""]:
        """Return the stock reconstruction error: summed over inputs, averaged over the batch."""
        return self.mse_loss_fn(out, x).sum(dim=-1).mean()

    def revival_loss(
        self, x: Float[Tensor, "batch d_in"], out: Float[Tensor, "batch d_in"], fired: Firings
    ) -> Float[Tensor, ""]:
        """Return the stock auxiliary loss: the strongest dead latents reconstruct the error of the living ones."""
        dead_at, dead_pre = fired.dead_at, fired.dead_pre
        if dead_at is None or len(dead_at) == 0:
            return out.new_tensor(0.0)
        if self.cfg.normalize_activations in PER_ROW:  # SAELens refuses: error and reconstruction differ in scale
            return self.calculate_topk_aux_loss(x, out, x, torch.ones_like(dead_at, dtype=torch.bool))
        half = x.shape[-1] // 2
        scale = min(len(dead_at) / half, 1.0)
        chosen = dead_pre * _largest(dead_pre.detach(), half, None if fired.norm is None else fired.norm[dead_at])
        error = (chosen @ self.W_dec.index_select(0, dead_at) - (x - out).detach()).pow(2).sum(dim=-1).mean()
        return self.cfg.aux_loss_coefficient * scale * error


def _largest(
    pre: Float[Tensor, "batch dead"], k: int, norm: Float[Tensor, " dead"] | None
) -> Float[Tensor, "batch dead"]:
    """Return 1 at the k largest of each row, 0 elsewhere."""
    if k >= pre.shape[1]:
        return torch.ones_like(pre)
    ranked = pre if norm is None else pre * norm
    return torch.zeros_like(pre).scatter_(-1, ranked.topk(k, sorted=False).indices, 1.0)
