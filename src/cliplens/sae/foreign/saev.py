"""saev: a line of JSON (config) before a torch state dict of W_enc, b_enc, W_dec, b_dec (BatchTopK: a threshold too).

    codes = act(x W_enc + b_enc);  out = codes W_dec + b_dec;  BatchTopK cuts at its running threshold when used

saev often normalises activations while it loads them, which the checkpoint does not hold: give it the same inputs.
Its TopK applies no ReLU, so it differs from SAELens' only in rows with fewer than k positive pre-activations.
"""

from typing import Any

from cliplens.sae.foreign.layout import Found, Layout, Meaning, not_in_saelens


class Saev(Layout):
    """Dictionaries of OSU-NLP-Group/saev."""

    name = "saev"

    def knows(self, found: Found) -> bool:
        """SAELens' tensor names, and a header with a schema or d_vit."""
        return "W_enc" in found.content and ("schema" in found.config or "d_vit" in found.config)

    def meaning(self, found: Found) -> Meaning:
        """Standard, topk or jumprelu."""
        tensors = {name: found.content[name] for name in ("W_enc", "b_enc", "W_dec", "b_dec")}
        kind, params = _activation(found.config)
        fields: dict[str, Any] = {"apply_b_dec_to_input": False}
        if kind == "Relu":
            return Meaning("standard", tensors, fields)
        if kind == "TopK":
            return Meaning("topk", tensors, {**fields, "k": int(params.get("top_k", 32))})
        if kind == "BatchTopK":
            cut = found.content["activation.threshold"].clamp_min(0)
            return Meaning("jumprelu", {**tensors, "threshold": cut.expand(tensors["b_enc"].shape)}, fields)
        raise not_in_saelens(self.name, f"the activation {kind}")


def _activation(header: Any) -> tuple[str, dict[str, Any]]:
    """Its class and parameters, wherever the schema keeps them."""
    config = header.get("cfg", {})
    if isinstance(config.get("activation"), dict):
        return config["activation"]["cls"], config["activation"]["params"]
    if header.get("cls") in ("Relu", "TopK", "BatchTopK"):
        return header["cls"], config
    return "Relu", {}
