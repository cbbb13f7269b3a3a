"""clipscope: {"d_in", "n_features", "k", "model_state_dict": pre_b, enc, dec}, files `<layer>_resid/<samples>.pt`.

    codes = the k largest of (x - pre_b) enc;  out = codes dec + pre_b

It applies no ReLU to the k largest, so it differs from SAELens' TopK only in rows with fewer than k positive ones.
"""

import re

from cliplens.sae.foreign.layout import Checkpoint, ForeignLayout, SaeSpec

_MODEL = "laion/CLIP-ViT-L-14-laion2B-s32B-b82K"
_LAYER = re.compile(r"^(\d+)_resid$")


class Clipscope(ForeignLayout):
    """Dictionaries of Lewington-pitsos/clipscope."""

    name = "clipscope"

    def recognises(self, checkpoint: Checkpoint) -> bool:
        """pre_b, enc and dec under model_state_dict."""
        return {"pre_b", "enc", "dec"} <= checkpoint.content.get("model_state_dict", {}).keys()

    def to_spec(self, checkpoint: Checkpoint) -> SaeSpec:
        """Topk, or standard where no k was saved."""
        state = checkpoint.content["model_state_dict"]
        tensors = {
            "W_enc": state["enc"],
            "b_enc": state["enc"].new_zeros(state["enc"].shape[1]),
            "W_dec": state["dec"],
            "b_dec": state["pre_b"],
        }
        layer = _LAYER.match(checkpoint.path.parent.name)
        hook = f"blocks.{layer[1]}.hook_resid_post" if layer else None
        k = checkpoint.content.get("k")
        if k is None:
            return SaeSpec("standard", tensors, {}, hook, _MODEL)
        return SaeSpec("topk", tensors, {"k": int(k)}, hook, _MODEL)
