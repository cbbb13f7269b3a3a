"""PatchSAE (and the mats_sae_training_for_ViTs code it grew from): {"cfg", "state_dict"}, standard only.

    codes = relu((x - b_dec) W_enc + b_enc);  out = codes W_dec + b_dec

`block_layer` counts the layers of a Hugging Face CLIP vision tower, from the end where negative.
"""

from typing import Any

from cliplens.sae.foreign.layout import Checkpoint, ForeignLayout, SaeSpec, unsupported


class PatchSAE(ForeignLayout):
    """Dictionaries of dynamical-inference/patchsae."""

    name = "patchsae"

    def recognises(self, checkpoint: Checkpoint) -> bool:
        """SAELens' tensor names under state_dict, and a block_layer in the config."""
        return "W_enc" in checkpoint.content.get("state_dict", {}) and "block_layer" in checkpoint.config

    def to_spec(self, checkpoint: Checkpoint) -> SaeSpec:
        """Standard."""
        if checkpoint.config.get("gated_sae"):
            raise unsupported(self.name, "a gated dictionary, which its own code never computes")
        state = checkpoint.content["state_dict"]
        tensors = {name: state[name] for name in ("W_enc", "b_enc", "W_dec", "b_dec")}
        return SaeSpec("standard", tensors, {}, _hook(checkpoint.config), checkpoint.config.get("model_name"))


def _hook(config: Any) -> str | None:
    layer, module = config["block_layer"], config.get("module_name", "resid")
    return f"blocks.{layer}.hook_resid_post" if module == "resid" and layer >= 0 else None
