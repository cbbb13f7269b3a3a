"""Convert ViT-Prisma: W_enc, b_enc, W_dec, b_dec (gated: b_gate, r_mag, b_mag too) and a config.

standard  act((norm(x) - b_dec) W_enc + b_enc);  gated as SAELens' own;  out = codes W_dec + b_dec, norm undone

Files are `weights.pt` with `config.json`, `n_images_<count>.pt`, or `sae_weights.safetensors` with `cfg.json` and
`sparsity.safetensors`.
"""

from collections.abc import Mapping
from typing import Any

from cliplens.sae.foreign.activation import Activation, Kind
from cliplens.sae.foreign.layout import Checkpoint, ForeignLayout, SaeSpec, unsupported
from cliplens.sae.foreign.weights import matrix, spec_of

_PLAIN = ("W_enc", "b_enc", "W_dec", "b_dec")
_GATED = ("W_enc", "W_dec", "b_dec", "b_gate", "r_mag", "b_mag")
_NORMS = ("none", "layer_norm", "constant_norm_rescale")


class Prisma(ForeignLayout):
    """Dictionaries of Prisma-Multimodal/ViT-Prisma."""

    name = "vit-prisma"

    def recognises(self, checkpoint: Checkpoint) -> bool:
        """Return whether it has SAELens' tensor names and an activation_fn_str in its config."""
        return {"W_enc", "W_dec", "b_dec"} <= checkpoint.state.keys() and "activation_fn_str" in checkpoint.config

    def to_spec(self, checkpoint: Checkpoint) -> SaeSpec:
        """Return a standard, topk or gated dictionary."""
        state, config = checkpoint.state, checkpoint.config
        if config.get("is_transcoder"):
            raise unsupported(self.name, "a transcoder")
        gated = "b_gate" in state
        allowed: frozenset[Kind] = frozenset({"gated"}) if gated else frozenset({"relu", "topk"})
        return spec_of(
            self.name,
            checkpoint,
            {n: matrix(state, n, self.name) for n in (_GATED if gated else _PLAIN)},
            Activation("gated") if gated else Activation(k=None if _has_k(config) else 64),
            allowed,
            {"normalize_activations": _norm(config)},
            hook_name=config.get("hook_point") or config.get("hook_name"),
            model_name=config.get("model_name"),
            understood=("normalize_activations",),
        )


def _has_k(config: Mapping[str, Any]) -> bool:
    """Return whether the config gives k; Prisma's own default is 64."""
    options = config.get("activation_fn_kwargs")
    return "k" in config or (isinstance(options, Mapping) and "k" in options)


def _norm(config: Mapping[str, Any]) -> str:
    asked = config.get("normalize_activations") or "none"
    if asked not in _NORMS:
        raise unsupported("vit-prisma", f"normalize_activations={asked!r}")
    return str(asked)
