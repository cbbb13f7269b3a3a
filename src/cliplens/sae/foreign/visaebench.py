"""Convert ViSAEBench: `sae.pt` with `encoder.weight`, `encoder.bias`, `decoder.weight` [latent, input], and a config.

    codes = act(relu(x E + b));  out = codes D (+ decoder.bias);  nothing is taken from the input

Both weights have one row per latent, unlike the decoder of torch.nn.Linear. If `d_in` equals `d_sae`, shapes do not
distinguish them: without a decoder bias it is this layout; with one, the config's `input_dim` or layout= decides.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from cliplens.sae.foreign.activation import Activation, Kind
from cliplens.sae.foreign.layout import Checkpoint, ForeignLayout, SaeSpec
from cliplens.sae.foreign.weights import matrix, spec_of, zeros_like_bias

_OTHERS = ("bias", "decoder_bias", "b_dec", "pre_bias", "bpre", "gate_bias")


class ViSAEBench(ForeignLayout):
    """Dictionaries of visaebench."""

    name = "visaebench"

    def recognises(self, checkpoint: Checkpoint) -> bool:
        """Return whether encoder and decoder have one row per latent, and no bias is subtracted from the input."""
        state = checkpoint.state
        encoder, decoder = state.get("encoder.weight"), state.get("decoder.weight")
        if not isinstance(encoder, Tensor) or not isinstance(decoder, Tensor) or any(n in state for n in _OTHERS):
            return False
        if encoder.shape != decoder.shape:
            return False
        square = encoder.shape[0] == encoder.shape[-1]
        return not square or "decoder.bias" not in state or "input_dim" in checkpoint.config

    def to_spec(self, checkpoint: Checkpoint) -> SaeSpec:
        """Return a standard, topk or jumprelu dictionary."""
        state = checkpoint.state
        decoder = matrix(state, "decoder.weight", self.name)
        bias = matrix(state, "decoder.bias", self.name) if "decoder.bias" in state else zeros_like_bias(decoder)
        tensors = {
            "W_enc": matrix(state, "encoder.weight", self.name).T,
            "b_enc": matrix(state, "encoder.bias", self.name),
            "W_dec": decoder,
            "b_dec": bias,
        }
        from_file, allowed = _activation(state)
        return spec_of(self.name, checkpoint, tensors, from_file, allowed, {"apply_b_dec_to_input": False})


def _activation(state: Mapping[str, Any]) -> tuple[Activation, frozenset[Kind]]:
    per_latent = next((state[n] for n in ("jump_thresholds", "thresholds") if n in state), None)
    if isinstance(per_latent, Tensor):
        return Activation("jumprelu", None, per_latent), frozenset({"jumprelu"})
    running = state.get("_running_threshold")
    if isinstance(running, Tensor):
        return Activation("batchtopk", None, running), frozenset({"batchtopk"})
    return Activation(), frozenset({"relu", "topk", "batchtopk", "jumprelu"})
