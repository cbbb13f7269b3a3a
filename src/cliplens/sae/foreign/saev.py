"""saev: a line of JSON (config) before a torch state dict of W_enc, b_enc, W_dec, b_dec (BatchTopK: a threshold too).

    codes = act(x W_enc + b_enc);  out = codes W_dec + b_dec;  BatchTopK cuts at its running threshold when used

saev often normalises activations while it loads them, which the checkpoint does not hold: give it the same inputs.
Its TopK applies no ReLU, so it differs from SAELens' only in rows with fewer than k positive pre-activations.
"""

from typing import Any

from cliplens.sae.foreign.layout import Checkpoint, ForeignLayout, SaeSpec, unsupported


class Saev(ForeignLayout):
    """Dictionaries of OSU-NLP-Group/saev."""

    name = "saev"

    def recognises(self, checkpoint: Checkpoint) -> bool:
        """SAELens' tensor names, and a header with a schema or d_vit."""
        return "W_enc" in checkpoint.content and ("schema" in checkpoint.config or "d_vit" in checkpoint.config)

    def to_spec(self, checkpoint: Checkpoint) -> SaeSpec:
        """Standard, topk or jumprelu."""
        tensors = {name: checkpoint.content[name] for name in ("W_enc", "b_enc", "W_dec", "b_dec")}
        kind, params = _activation(checkpoint.config)
        fields: dict[str, Any] = {"apply_b_dec_to_input": False}
        if kind == "Relu":
            return SaeSpec("standard", tensors, fields)
        if kind == "TopK":
            return SaeSpec("topk", tensors, {**fields, "k": int(params.get("top_k", 32))})
        if kind == "BatchTopK":
            cut = checkpoint.content["activation.threshold"].clamp_min(0)
            return SaeSpec("jumprelu", {**tensors, "threshold": cut.expand(tensors["b_enc"].shape)}, fields)
        raise unsupported(self.name, f"the activation {kind}")


def _activation(header: Any) -> tuple[str, dict[str, Any]]:
    """Its class and parameters, wherever the schema keeps them."""
    config = header.get("cfg", {})
    if isinstance(config.get("activation"), dict):
        return config["activation"]["cls"], config["activation"]["params"]
    if header.get("cls") in ("Relu", "TopK", "BatchTopK"):
        return header["cls"], config
    return "Relu", {}
