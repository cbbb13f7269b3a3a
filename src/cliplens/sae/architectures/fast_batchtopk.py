"""SAELens' BatchTopK and Matryoshka BatchTopK with a faster training step and the same losses.

Both are saved as their stock classes. `sparse_training` holds the step, `sparse_step` its forward and
backward passes.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from sae_lens.saes.batchtopk_sae import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
from sae_lens.saes.matryoshka_batchtopk_sae import (
    MatryoshkaBatchTopKTrainingSAE,
    MatryoshkaBatchTopKTrainingSAEConfig,
)
from sae_lens.saes.sae import TrainStepInput, TrainStepOutput
from torch import Tensor

from cliplens.sae.architectures.paired import register_training
from cliplens.sae.architectures.ranking import Ranked, strongest
from cliplens.sae.architectures.sparse_training import PER_ROW, Firings, SparseStep


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


class _SparseBatchTopK(SparseStep, BatchTopKTrainingSAE):
    """The training step of both classes."""

    topk_threshold: Tensor

    def choose(self, ranked: Ranked) -> Int[Tensor, " firing"]:
        """Return the flat indices of the k * batch largest values of the batch, sorted."""
        return strongest(ranked, int(self.cfg.k * ranked.shape[0]))

    def training_forward_pass(self, step_input: TrainStepInput) -> TrainStepOutput:
        """Return the stock losses. `feature_acts` is a sparse tensor, and `hidden_pre` holds the firing latents only.

        A matryoshka auxiliary loss and normalisation per row use the stock step.
        """
        if getattr(self.cfg, "use_matryoshka_aux_loss", False) or self.cfg.normalize_activations in PER_ROW:
            return super(SparseStep, self).training_forward_pass(step_input)
        return super().training_forward_pass(step_input)

    def further_losses(self, x: Float[Tensor, "batch d_in"], fired: Firings) -> dict[str, Float[Tensor, ""]]:
        """Return the errors of reconstructions from the first latents only, for the matryoshka class."""
        losses = {}
        for width in getattr(self.cfg, "matryoshka_widths", [])[:-1]:
            inner = self.reconstruct(fired, fired.values * (fired.at < width), len(x))
            losses[f"inner_mse_loss_{width}"] = self.error(inner, x)
        return losses

    @torch.no_grad()
    def metrics(self, fired: Firings) -> dict[str, Tensor]:
        """Move the threshold towards the least positive activation, without waiting for the device."""
        codes = fired.codes
        least = torch.where(codes > 0, codes, torch.inf).min().to(self.topk_threshold.dtype)
        rate = self.cfg.topk_threshold_lr
        moved = (1 - rate) * self.topk_threshold + rate * least
        self.topk_threshold = torch.where(torch.isfinite(least), moved, self.topk_threshold)
        return {"topk_threshold": self.topk_threshold}


class FastBatchTopKTrainingSAE(_SparseBatchTopK):
    """SAELens' BatchTopK with a training step over the firing latents only."""

    cfg: FastBatchTopKTrainingSAEConfig


class FastMatryoshkaBatchTopKTrainingSAE(_SparseBatchTopK, MatryoshkaBatchTopKTrainingSAE):
    """SAELens' Matryoshka BatchTopK with a training step over the firing latents only."""

    cfg: FastMatryoshkaBatchTopKTrainingSAEConfig


register_training("fast_batchtopk", FastBatchTopKTrainingSAE, FastBatchTopKTrainingSAEConfig)
register_training(
    "fast_matryoshka_batchtopk", FastMatryoshkaBatchTopKTrainingSAE, FastMatryoshkaBatchTopKTrainingSAEConfig
)
