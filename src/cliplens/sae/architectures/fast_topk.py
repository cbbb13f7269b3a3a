"""SAELens' TopK with a faster training step and the same losses. It is saved as stock TopK.

`sparse_training` holds the step, `sparse_step` its forward and backward passes.
"""

from dataclasses import dataclass

from jaxtyping import Float, Int
from sae_lens.saes.sae import SAEConfig, TrainStepInput, TrainStepOutput
from sae_lens.saes.topk_sae import TopKSAEConfig, TopKTrainingSAEConfig
from torch import Tensor

from cliplens.sae.architectures.paired import register_training
from cliplens.sae.architectures.sparse_step import strongest_of_rows
from cliplens.sae.architectures.sparse_training import SparseStep


@dataclass
class FastTopKTrainingSAEConfig(TopKTrainingSAEConfig):
    """The fields of SAELens' TopK."""

    @classmethod
    def architecture(cls) -> str:
        """Return its name in SAELens' registry."""
        return "fast_topk"

    def get_inference_config_class(self) -> type[SAEConfig]:
        """Return stock TopK's config: it is saved as stock TopK."""
        return TopKSAEConfig


class FastTopKTrainingSAE(SparseStep):
    """SAELens' TopK with a training step over the firing latents only."""

    cfg: FastTopKTrainingSAEConfig

    def choose(self, ranked: Float[Tensor, "batch d_sae"]) -> Int[Tensor, " firing"]:
        """Return the flat indices of the k largest values of each row, sorted."""
        return strongest_of_rows(ranked, self.cfg.k)

    def training_forward_pass(self, step_input: TrainStepInput) -> TrainStepOutput:
        """Return the stock losses; `hidden_pre` holds the firing latents only."""
        x = step_input.sae_in
        fired = self.firings(step_input)
        out = self.reconstruct(fired, fired.values, len(x))
        losses = {
            "mse_loss": self.error(out, x),
            "auxiliary_reconstruction_loss": self.revival_loss(x, out, fired),
        }
        codes = fired.codes.view(len(x), self.cfg.k)
        return TrainStepOutput(
            sae_in=x,
            sae_out=out,
            feature_acts=codes.new_zeros(len(x), self.cfg.d_sae).scatter_(-1, fired.at.view(codes.shape), codes),
            hidden_pre=codes,
            loss=losses["mse_loss"] + losses["auxiliary_reconstruction_loss"],
            losses=losses,
        )


register_training("fast_topk", FastTopKTrainingSAE, FastTopKTrainingSAEConfig)
