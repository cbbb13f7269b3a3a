"""Convert clipscope: {"d_in", "n_features", "k", "model_state_dict": pre_b, enc, dec} in `<layer>_resid/<samples>.pt`.

    codes = the k largest of (x - pre_b) enc;  out = codes dec + pre_b

Its code applies no ReLU to the k largest. It differs from SAELens' TopK only in rows with fewer than k positive ones.
"""

import re

from cliplens.sae.foreign.activation import Activation
from cliplens.sae.foreign.layout import Checkpoint, ForeignLayout, SaeSpec
from cliplens.sae.foreign.weights import matrix, spec_of

_MODEL = "laion/CLIP-ViT-L-14-laion2B-s32B-b82K"
_LAYER = re.compile(r"^(\d+)_resid$")


class Clipscope(ForeignLayout):
    """Dictionaries of Lewington-pitsos/clipscope."""

    name = "clipscope"

    def recognises(self, checkpoint: Checkpoint) -> bool:
        """Return whether the state dict contains pre_b, enc and dec."""
        return {"pre_b", "enc", "dec"} <= checkpoint.state.keys()

    def to_spec(self, checkpoint: Checkpoint) -> SaeSpec:
        """Return a topk dictionary, or a standard one if no k was saved."""
        enc, dec, bias = (matrix(checkpoint.state, n, self.name) for n in ("enc", "dec", "pre_b"))
        tensors = {"W_enc": enc, "b_enc": enc.new_zeros(enc.shape[1]), "W_dec": dec, "b_dec": bias}
        layer = _LAYER.match(checkpoint.path.parent.name)
        k = checkpoint.content.get("k")
        from_file = Activation("relu") if k is None else Activation("topk", int(k))
        return spec_of(
            self.name,
            checkpoint,
            tensors,
            from_file,
            frozenset({"relu", "topk"}),
            hook_name=f"blocks.{layer[1]}.hook_resid_post" if layer else None,
            model_name=_MODEL,
        )
