"""Convert dictionary_learning, which sae-for-vlm trains with: `ae.pt` and `config.json`; linear layers are transposed.

AutoEncoder                  relu(E(x - bias)), decoder norms folded into the codes as its own loader does
AutoEncoderNew               relu(E x), nothing taken from the input
GatedAutoEncoder             as SAELens' gated
AutoEncoderTopK              the k largest of relu(E(x - b_dec))
BatchTopKSAE, Matroyshka...  relu(E(x - b_dec)) above a threshold; a threshold below 0 cuts nothing
JumpReluAutoEncoder          relu(x W_enc + b_enc) above a threshold per latent

The names of the tensors say what is taken from the input; the configuration says the activation. Where it is silent,
the class that has these tensors decides.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from cliplens.sae.foreign.activation import Activation, Kind, decide
from cliplens.sae.foreign.layout import Checkpoint, ForeignLayout, SaeSpec
from cliplens.sae.foreign.weights import matrix, spec_of

_BIASES = ("bias", "decoder.bias", "decoder_bias", "b_dec")
_FOLDED = ("norm_factor",)
"""Factors that the library multiplies into the weights before it saves them, and also keeps in its configuration."""
_WITHOUT_GATES: frozenset[Kind] = frozenset({"relu", "topk", "batchtopk", "jumprelu"})


class DictionaryLearning(ForeignLayout):
    """Dictionaries of saprmarks/dictionary_learning and ExplainableML/sae-for-vlm."""

    name = "dictionary-learning"

    def recognises(self, checkpoint: Checkpoint) -> bool:
        """Return whether it holds linear layers and a bias of theirs, or flat weights with a threshold."""
        state = checkpoint.state
        linear = {"encoder.weight", "decoder.weight"} <= state.keys() and any(name in state for name in _BIASES)
        saelens = "architecture" in checkpoint.config or "apply_b_dec_to_input" in checkpoint.config
        return linear or ({"W_enc", "b_dec", "threshold"} <= state.keys() and not saelens)

    def to_spec(self, checkpoint: Checkpoint) -> SaeSpec:
        """Return a standard, gated, topk or jumprelu dictionary."""
        state = checkpoint.state
        from_file, allowed = _activation(state)
        tensors, fields = self._tensors(state)
        if "bias" in state and decide(self.name, checkpoint.config, from_file, allowed).kind == "relu":
            tensors = _norms_in_codes(tensors)
        trainer = checkpoint.config.get("trainer")
        model = trainer.get("lm_name") if isinstance(trainer, Mapping) else None
        return spec_of(self.name, checkpoint, tensors, from_file, allowed, fields, model_name=model, understood=_FOLDED)

    def _tensors(self, state: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
        bias = next((name for name in _BIASES if name in state), "b_dec")
        per_latent = "threshold" in state and matrix(state, "threshold", self.name).ndim == 1
        reads_raw = bias == "decoder.bias" or ("W_enc" in state and per_latent)
        tensors = {"b_dec": matrix(state, bias, self.name)}
        if "W_enc" in state:
            tensors |= {name: matrix(state, name, self.name) for name in ("W_enc", "W_dec")}
        else:
            tensors["W_enc"] = matrix(state, "encoder.weight", self.name).T
            tensors["W_dec"] = matrix(state, "decoder.weight", self.name).T
        if "gate_bias" in state:
            gates = {"b_gate": "gate_bias", "b_mag": "mag_bias", "r_mag": "r_mag"}
            tensors |= {ours: matrix(state, theirs, self.name) for ours, theirs in gates.items()}
        else:
            tensors["b_enc"] = matrix(state, "b_enc" if "W_enc" in state else "encoder.bias", self.name)
        return tensors, {"apply_b_dec_to_input": False} if reads_raw else {}


def _activation(state: Mapping[str, Any]) -> tuple[Activation, frozenset[Kind]]:
    """Return the activation of the class these tensors belong to, and all they can belong to."""
    if "gate_bias" in state:
        return Activation("gated"), frozenset({"gated"})
    threshold = state.get("threshold")
    k = int(state["k"]) if isinstance(state.get("k"), Tensor | int) else None
    if isinstance(threshold, Tensor) and threshold.ndim == 1:
        return Activation("jumprelu", k, threshold), frozenset({"jumprelu", "batchtopk"})
    if isinstance(threshold, Tensor):
        kind: Kind = "topk" if k is not None and float(threshold) < 0 and "W_enc" not in state else "batchtopk"
        return Activation(kind, k, threshold), frozenset({"topk", "batchtopk", "jumprelu"})
    if k is not None:
        return Activation("topk", k), frozenset({"topk"})
    by_class: Kind | None = "relu" if "bias" in state or "decoder.bias" in state else None
    return Activation(by_class), _WITHOUT_GATES


def _norms_in_codes(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the dictionary with unit decoder rows, their norms moved into the codes."""
    norms = tensors["W_dec"].norm(dim=1)
    divisors = torch.where(norms > 0, norms, torch.ones_like(norms))
    return {
        **tensors,
        "W_enc": tensors["W_enc"] * norms,
        "b_enc": tensors["b_enc"] * norms,
        "W_dec": tensors["W_dec"] / divisors[:, None],
    }
