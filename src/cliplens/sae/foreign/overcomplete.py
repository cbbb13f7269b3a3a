"""Convert overcomplete: `encoder.final_block.0.*`, `dictionary._weights`, `dictionary.multiplier` and a config.

    codes = act(x E + b);  out = codes D exp(multiplier);  nothing is taken from the input or added to the output

The dictionary is used as saved. If the config contains `normalization`, it is normalised as overcomplete does in eval
mode. JumpReLU thresholds are saved as logarithms. The encoder must be one linear layer; batch norm is folded in.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from cliplens.sae.foreign.activation import Activation, Kind
from cliplens.sae.foreign.layout import Checkpoint, ForeignLayout, SaeSpec, unsupported
from cliplens.sae.foreign.weights import matrix, spec_of, zeros_like_bias

_WEIGHT, _BIAS = "encoder.final_block.0.weight", "encoder.final_block.0.bias"
_NORM = "encoder.final_block.1."
_ALLOWED: frozenset[Kind] = frozenset({"relu", "topk", "batchtopk", "jumprelu"})


class Overcomplete(ForeignLayout):
    """Dictionaries of KempnerInstitute/overcomplete."""

    name = "overcomplete"

    def recognises(self, checkpoint: Checkpoint) -> bool:
        """Return whether the checkpoint contains dictionary._weights and an encoder."""
        return "dictionary._weights" in checkpoint.state

    def to_spec(self, checkpoint: Checkpoint) -> SaeSpec:
        """Return a standard, topk or jumprelu dictionary."""
        state = checkpoint.state
        if _WEIGHT not in state or any(str(name).startswith("encoder.mlp_blocks") for name in state):
            raise unsupported(self.name, "an encoder that is not one linear layer")
        weight, bias = _encoder(state)
        decoder = _normalised(matrix(state, "dictionary._weights", self.name), checkpoint.config)
        multiplier = state.get("dictionary.multiplier")
        if isinstance(multiplier, Tensor):
            decoder = decoder * multiplier.exp()
        tensors = {"W_enc": weight.T, "b_enc": bias, "W_dec": decoder, "b_dec": zeros_like_bias(decoder)}
        from_file, allowed = _activation(state)
        fields = {"apply_b_dec_to_input": False}
        return spec_of(self.name, checkpoint, tensors, from_file, allowed, fields, understood=("normalization",))


def _encoder(state: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    weight, bias = matrix(state, _WEIGHT, "overcomplete"), matrix(state, _BIAS, "overcomplete")
    if not any(str(name).startswith(_NORM) for name in state):
        return weight, bias
    if f"{_NORM}running_var" not in state:
        raise unsupported("overcomplete", "an encoder with a layer norm")
    parts = {n: matrix(state, f"{_NORM}{n}", "overcomplete") for n in ("weight", "bias", "running_mean", "running_var")}
    scale = parts["weight"] / (parts["running_var"] + 1e-5).sqrt()
    return weight * scale[:, None], (bias - parts["running_mean"]) * scale + parts["bias"]


def _normalised(decoder: Tensor, config: Mapping[str, Any]) -> Tensor:
    options = config.get("dictionary_params")
    name = config.get("normalization") or (options.get("normalization") if isinstance(options, Mapping) else None)
    if name in (None, "identity"):
        return decoder
    if name not in ("l2", "l1", "max_l2", "max_l1"):
        raise unsupported("overcomplete", f"the dictionary normalization {name!r}")
    norms = decoder.norm(p=int(name[-1]), dim=1, keepdim=True)
    return decoder / (norms.amax() if name.startswith("max") else norms + 1e-8)


def _activation(state: Mapping[str, Any]) -> tuple[Activation, frozenset[Kind]]:
    thresholds = state.get("thresholds")
    if isinstance(thresholds, Tensor):
        return Activation("jumprelu", None, torch.exp(thresholds)), frozenset({"jumprelu"})
    running = next((state[n] for n in ("running_threshold", "_running_threshold") if n in state), None)
    if running is not None:
        return Activation("batchtopk", None, torch.as_tensor(running)), frozenset({"batchtopk"})
    return Activation(), _ALLOWED
