"""ViT-Prisma: `weights.pt` with W_enc, b_enc, W_dec, b_dec (gated: b_gate, r_mag, b_mag too) and a config.

standard  act((norm(x) - b_dec) W_enc + b_enc);  gated as SAELens' own;  out = codes W_dec + b_dec, norm undone
"""

from typing import Any

from cliplens.sae.foreign.layout import Checkpoint, ForeignLayout, SaeSpec, unsupported

_PLAIN = ("W_enc", "b_enc", "W_dec", "b_dec")
_GATED = ("W_enc", "W_dec", "b_dec", "b_gate", "r_mag", "b_mag")


class Prisma(ForeignLayout):
    """Dictionaries of Prisma-Multimodal/ViT-Prisma."""

    name = "vit-prisma"

    def recognises(self, checkpoint: Checkpoint) -> bool:
        """SAELens' tensor names, and a config that is not PatchSAE's."""
        state = checkpoint.content.get("state_dict", checkpoint.content)
        return all(n in state for n in ("W_enc", "W_dec", "b_dec")) and "activation_fn_str" in checkpoint.config

    def to_spec(self, checkpoint: Checkpoint) -> SaeSpec:
        """Standard, topk or gated."""
        state, config = checkpoint.content.get("state_dict", checkpoint.content), checkpoint.config
        if config.get("is_transcoder"):
            raise unsupported(self.name, "a transcoder")
        architecture, extra = _architecture(config)
        names = _GATED if architecture == "gated" else _PLAIN
        fields = {"normalize_activations": config.get("normalize_activations") or "none", **extra}
        return SaeSpec(
            architecture, {n: state[n] for n in names}, fields, config.get("hook_point"), config.get("model_name")
        )


def _architecture(config: Any) -> tuple[str, dict[str, Any]]:
    activation, kind = config["activation_fn_str"], config.get("architecture", "standard")
    if activation == "relu" and kind in ("standard", "gated"):
        return kind, {}
    if activation == "topk" and kind == "standard":
        return "topk", {"k": int(config.get("activation_fn_kwargs", {}).get("k", 64))}
    raise unsupported("vit-prisma", f"architecture {kind!r} with activation {activation!r}")
