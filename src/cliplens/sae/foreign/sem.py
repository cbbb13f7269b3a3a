"""Convert SEM's matryoshka dictionaries of CLIP embeddings: bpre, encoder.weight, encoder.bias, decoder.weight.

    codes = relu((x - bpre) E + b);  out = codes D + bpre

Weights are those of torch's linear layers, so `decoder.weight` is [input, latent].
"""

from cliplens.sae.foreign.activation import Activation
from cliplens.sae.foreign.layout import Checkpoint, ForeignLayout, SaeSpec
from cliplens.sae.foreign.weights import matrix, spec_of


class Sem(ForeignLayout):
    """Dictionaries of mardgui/SEM."""

    name = "sem"

    def recognises(self, checkpoint: Checkpoint) -> bool:
        """Return whether the checkpoint contains `bpre` and a linear encoder."""
        return {"bpre", "encoder.weight"} <= checkpoint.state.keys()

    def to_spec(self, checkpoint: Checkpoint) -> SaeSpec:
        """Return a standard dictionary, or a topk one where a configuration asks for it."""
        state = checkpoint.state
        tensors = {
            "W_enc": matrix(state, "encoder.weight", self.name).T,
            "b_enc": matrix(state, "encoder.bias", self.name),
            "W_dec": matrix(state, "decoder.weight", self.name).T,
            "b_dec": matrix(state, "bpre", self.name),
        }
        return spec_of(self.name, checkpoint, tensors, Activation("relu"), frozenset({"relu", "topk"}))
