"""Convert a bare state dict with SAELens' names: W_enc, b_enc, W_dec, b_dec, and a threshold or gates if it has them.

    codes = act((x - b_dec) W_enc + b_enc);  out = codes W_dec + b_dec

The tensors do not determine the activation. A config.json must define it; layout="plain" without one means ReLU.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from cliplens.errors import InputError
from cliplens.sae.foreign.activation import Activation, Kind, configured_activation
from cliplens.sae.foreign.layout import Checkpoint, ForeignLayout, SaeSpec
from cliplens.sae.foreign.weights import matrix, spec_of

_PLAIN = ("W_enc", "b_enc", "W_dec", "b_dec")
_NORMS = ("layer_norm", "constant_norm_rescale")
_GATED = ("W_enc", "W_dec", "b_dec", "b_gate", "r_mag", "b_mag")


class Plain(ForeignLayout):
    """Bare SAELens state dicts."""

    name = "plain"

    def recognises(self, checkpoint: Checkpoint) -> bool:
        """Return whether the checkpoint has SAELens' tensor names and defines its activation.

        Raises:
            InputError: it has the names, but does not define the activation.
        """
        state = checkpoint.state
        if not {"W_enc", "W_dec", "b_dec"} <= state.keys():
            return False
        if _activation(state)[0].kind is None and configured_activation(checkpoint.config).kind is None:
            raise InputError(
                expected="a configuration with the activation, next to W_enc, b_enc, W_dec and b_dec",
                found=f"{checkpoint.path} without one",
                fix='put a config.json next to it, for example {"activation": "topk", "k": 32}, or pass layout="plain"'
                " (--layout plain), which reads ReLU((x - b_dec) W_enc + b_enc)",
            )
        return True

    def to_spec(self, checkpoint: Checkpoint) -> SaeSpec:
        """Return a standard, topk, jumprelu or gated dictionary."""
        state, config = checkpoint.state, checkpoint.config
        from_file, allowed = _activation(state)
        if from_file.kind is None and configured_activation(config).kind is None:
            from_file = Activation("relu")
        names = _GATED if "b_gate" in state else _PLAIN
        norm = config.get("normalize_activations")
        understood = ("normalize_activations",) if norm in _NORMS else ()
        return spec_of(
            self.name,
            checkpoint,
            {n: matrix(state, n, self.name) for n in names},
            from_file,
            allowed,
            {"normalize_activations": norm} if understood else {},
            hook_name=config.get("hook_name"),
            model_name=config.get("model_name"),
            understood=understood,
        )


def _activation(state: Mapping[str, Any]) -> tuple[Activation, frozenset[Kind]]:
    if "b_gate" in state:
        return Activation("gated"), frozenset({"gated"})
    threshold = state.get("threshold")
    if isinstance(threshold, Tensor):
        kinds: frozenset[Kind] = frozenset({"jumprelu", "batchtopk"})
        return Activation("jumprelu" if threshold.ndim else "batchtopk", None, threshold), kinds
    return Activation(), frozenset({"relu", "topk", "batchtopk", "jumprelu"})
