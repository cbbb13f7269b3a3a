"""dictionary_learning, which sae-for-vlm trains with: `ae.pt` and `config.json`. Linear layers are stored transposed.

AutoEncoder                  relu(E(x - bias)), decoder norms folded into the codes as its own loader does
AutoEncoderNew               relu(E x), nothing taken from the input
GatedAutoEncoder             as SAELens' gated
AutoEncoderTopK              the k largest of relu(E(x - b_dec))
BatchTopKSAE, Matroyshka...  relu(E(x - b_dec)) above a threshold; a threshold below 0 cuts nothing
JumpReluAutoEncoder          relu(x W_enc + b_enc) above a threshold per latent
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from cliplens.sae.foreign.layout import Checkpoint, ForeignLayout, SaeSpec, unsupported

State = Mapping[str, Tensor]


class DictionaryLearning(ForeignLayout):
    """Dictionaries of saprmarks/dictionary_learning and ExplainableML/sae-for-vlm."""

    name = "dictionary-learning"

    def recognises(self, checkpoint: Checkpoint) -> bool:
        """A linear encoder, or flat weights with a threshold."""
        names = checkpoint.content.keys()
        return "encoder.weight" in names or {"W_enc", "b_dec", "threshold"} <= names

    def to_spec(self, checkpoint: Checkpoint) -> SaeSpec:
        """By the class named in the config, else by the tensors there are."""
        trainer = checkpoint.config.get("trainer", {})
        kind = trainer.get("dict_class") or _guessed(checkpoint.content)
        if kind not in _CLASSES:
            raise unsupported(self.name, f"a {kind}")
        architecture, tensors, fields = _CLASSES[kind](checkpoint.content)
        return SaeSpec(architecture, tensors, fields, model_name=trainer.get("lm_name"))


def _guessed(state: State) -> str:
    if "gate_bias" in state:
        return "GatedAutoEncoder"
    if "W_enc" in state:
        return "BatchTopKSAE" if state["threshold"].ndim == 0 else "JumpReluAutoEncoder"
    if "bias" in state:
        return "AutoEncoder"
    if "decoder.bias" in state:
        return "AutoEncoderNew"
    return "BatchTopKSAE" if float(state.get("threshold", torch.tensor(-1.0))) >= 0 else "AutoEncoderTopK"


Converted = tuple[str, dict[str, Tensor], dict[str, object]]


def _standard(state: State) -> Converted:
    norms = state["decoder.weight"].norm(dim=0)
    tensors = {
        "W_enc": state["encoder.weight"].T * norms,
        "b_enc": state["encoder.bias"] * norms,
        "W_dec": (state["decoder.weight"] / norms).T,
        "b_dec": state["bias"],
    }
    return "standard", tensors, {}


def _new(state: State) -> Converted:
    tensors = {**_linear(state), "b_dec": state["decoder.bias"]}
    return "standard", tensors, {"apply_b_dec_to_input": False}


def _gated(state: State) -> Converted:
    tensors = {
        "W_enc": state["encoder.weight"].T,
        "W_dec": state["decoder.weight"].T,
        "b_dec": state["decoder_bias"],
        "b_gate": state["gate_bias"],
        "b_mag": state["mag_bias"],
        "r_mag": state["r_mag"],
    }
    return "gated", tensors, {}


def _topk(state: State) -> Converted:
    return "topk", {**_linear(state), "b_dec": state["b_dec"]}, {"k": int(state["k"])}


def _batch_topk(state: State) -> Converted:
    flat = {n: state[n] for n in ("W_enc", "b_enc", "W_dec")} if "W_enc" in state else _linear(state)
    threshold = state["threshold"].clamp_min(0).expand(flat["b_enc"].shape)
    return "jumprelu", {**flat, "b_dec": state["b_dec"], "threshold": threshold}, {}


def _jumprelu(state: State) -> Converted:
    names = ("W_enc", "b_enc", "W_dec", "b_dec", "threshold")
    return "jumprelu", {n: state[n] for n in names}, {"apply_b_dec_to_input": False}


def _linear(state: State) -> dict[str, Tensor]:
    return {"W_enc": state["encoder.weight"].T, "b_enc": state["encoder.bias"], "W_dec": state["decoder.weight"].T}


_CLASSES: dict[str, Callable[[State], Converted]] = {
    "AutoEncoder": _standard,
    "AutoEncoderNew": _new,
    "GatedAutoEncoder": _gated,
    "AutoEncoderTopK": _topk,
    "BatchTopKSAE": _batch_topk,
    "MatroyshkaBatchTopKSAE": _batch_topk,
    "MatryoshkaBatchTopKSAE": _batch_topk,
    "JumpReluAutoEncoder": _jumprelu,
}
