"""Convert PatchSAE (and the mats_sae_training_for_ViTs code it grew from): {"cfg", "state_dict"}, standard only.

    codes = relu((x - b_dec) W_enc + b_enc);  out = codes W_dec + b_dec

`block_layer` counts the layers of a Hugging Face CLIP vision tower, from the end where negative.
"""

from typing import Any

from cliplens.sae.foreign.activation import Activation
from cliplens.sae.foreign.layout import Checkpoint, ForeignLayout, SaeSpec, unsupported
from cliplens.sae.foreign.weights import matrix, spec_of


class PatchSAE(ForeignLayout):
    """Dictionaries of dynamical-inference/patchsae."""

    name = "patchsae"

    def recognises(self, checkpoint: Checkpoint) -> bool:
        """Return whether it has SAELens' tensor names and a block_layer in its config."""
        return "W_enc" in checkpoint.state and "block_layer" in checkpoint.config

    def to_spec(self, checkpoint: Checkpoint) -> SaeSpec:
        """Return a standard dictionary."""
        if checkpoint.config.get("gated_sae"):
            raise unsupported(self.name, "a gated dictionary, which its own code never computes")
        tensors = {n: matrix(checkpoint.state, n, self.name) for n in ("W_enc", "b_enc", "W_dec", "b_dec")}
        return spec_of(
            self.name,
            checkpoint,
            tensors,
            Activation("relu"),
            frozenset({"relu"}),
            hook_name=_hook(checkpoint.config),
            model_name=checkpoint.config.get("model_name"),
        )


def _hook(config: Any) -> str | None:
    layer, module = config["block_layer"], config.get("module_name", "resid")
    return f"blocks.{layer}.hook_resid_post" if module == "resid" and layer >= 0 else None
