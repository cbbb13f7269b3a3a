"""Convert EleutherAI's sparsify: `sae.safetensors` with encoder.weight, encoder.bias, W_dec, b_dec, and `cfg.json`.

codes = the k largest of relu((x - b_dec) E + b);  out = codes W_dec + b_dec
"""

from cliplens.sae.foreign.activation import Activation
from cliplens.sae.foreign.layout import Checkpoint, ForeignLayout, SaeSpec, unsupported
from cliplens.sae.foreign.weights import matrix, spec_of


class Sparsify(ForeignLayout):
    """Dictionaries of EleutherAI/sparsify."""

    name = "sparsify"

    def recognises(self, checkpoint: Checkpoint) -> bool:
        """Return whether it holds a linear encoder beside W_dec and b_dec."""
        return {"encoder.weight", "W_dec", "b_dec"} <= checkpoint.state.keys()

    def to_spec(self, checkpoint: Checkpoint) -> SaeSpec:
        """Return a topk dictionary."""
        state, config = checkpoint.state, checkpoint.config
        if config.get("transcode") or config.get("skip_connection") or "W_skip" in state:
            raise unsupported(self.name, "a transcoder or a skip connection")
        if config.get("signed"):
            raise unsupported(self.name, "TopK by absolute value, with codes below zero (signed)")
        if config.get("activation") == "groupmax":
            raise unsupported(self.name, "the activation groupmax")
        tensors = {
            "W_enc": matrix(state, "encoder.weight", self.name).T,
            "b_enc": matrix(state, "encoder.bias", self.name),
            "W_dec": matrix(state, "W_dec", self.name),
            "b_dec": matrix(state, "b_dec", self.name),
        }
        from_file = Activation("topk")  # sparsify's own default where cfg.json comes from before `activation`
        return spec_of(self.name, checkpoint, tensors, from_file, frozenset({"topk"}))
