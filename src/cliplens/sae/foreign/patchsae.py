"""PatchSAE (and the mats_sae_training_for_ViTs code it grew from): {"cfg", "state_dict"}, standard only.

    codes = relu((x - b_dec) W_enc + b_enc);  out = codes W_dec + b_dec

`block_layer` counts the layers of a Hugging Face CLIP vision tower, from the end where negative.
"""

from typing import Any

from cliplens.sae.foreign.layout import Found, Layout, Meaning, not_in_saelens


class PatchSAE(Layout):
    """Dictionaries of dynamical-inference/patchsae."""

    name = "patchsae"

    def knows(self, found: Found) -> bool:
        """SAELens' tensor names under state_dict, and a block_layer in the config."""
        return "W_enc" in found.content.get("state_dict", {}) and "block_layer" in found.config

    def meaning(self, found: Found) -> Meaning:
        """Standard."""
        if found.config.get("gated_sae"):
            raise not_in_saelens(self.name, "a gated dictionary, which its own code never computes")
        state = found.content["state_dict"]
        tensors = {name: state[name] for name in ("W_enc", "b_enc", "W_dec", "b_dec")}
        return Meaning("standard", tensors, {}, _hook(found.config), found.config.get("model_name"))


def _hook(config: Any) -> str | None:
    layer, module = config["block_layer"], config.get("module_name", "resid")
    return f"blocks.{layer}.hook_resid_post" if module == "resid" and layer >= 0 else None
