"""Convert saev: a line of JSON before a torch state dict of W_enc, b_enc, W_dec, b_dec (BatchTopK: a threshold too).

    codes = act(x W_enc + b_enc);  out = codes W_dec + b_dec;  BatchTopK cuts at its running threshold when used

saev often normalises activations while loading them, which the checkpoint does not record: pass the same inputs.
Its TopK applies no ReLU, so it differs from SAELens' only in rows with fewer than k positive pre-activations.
"""

from collections.abc import Mapping
from typing import Any

from cliplens.sae.foreign.activation import Activation, Kind
from cliplens.sae.foreign.layout import Checkpoint, ForeignLayout, SaeSpec, unsupported
from cliplens.sae.foreign.weights import matrix, spec_of

_KINDS: dict[str, Kind] = {"Relu": "relu", "TopK": "topk", "BatchTopK": "batchtopk"}


class Saev(ForeignLayout):
    """Dictionaries of OSU-NLP-Group/saev."""

    name = "saev"

    def recognises(self, checkpoint: Checkpoint) -> bool:
        """Return whether it has SAELens' tensor names and a header with a schema or d_vit."""
        return "W_enc" in checkpoint.state and ("schema" in checkpoint.config or "d_vit" in checkpoint.config)

    def to_spec(self, checkpoint: Checkpoint) -> SaeSpec:
        """Return a standard, topk or jumprelu dictionary."""
        state = checkpoint.state
        tensors = {name: matrix(state, name, self.name) for name in ("W_enc", "b_enc", "W_dec", "b_dec")}
        name, params = _activation(checkpoint.config)
        kind = _KINDS.get(name)
        if kind is None:
            raise unsupported(self.name, f"the activation {name}")
        threshold = matrix(state, "activation.threshold", self.name) if kind == "batchtopk" else None
        k = int(params.get("top_k", 32)) if kind == "topk" else None
        # The entries of the header are saev's own and were read above.
        own = Checkpoint(checkpoint.path, checkpoint.content, read=checkpoint.read)
        fields = {"apply_b_dec_to_input": False}
        return spec_of(self.name, own, tensors, Activation(kind, k, threshold), frozenset({kind}), fields)


def _activation(header: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Return class and parameters of the activation; their place depends on the schema."""
    config = header.get("cfg", {} if "d_vit" in header else None)
    if not isinstance(config, Mapping):
        raise unsupported("saev", f"a header of schema {header.get('schema')} without `cfg`")
    if isinstance(config.get("activation"), Mapping):
        return str(config["activation"].get("cls")), config["activation"].get("params", {})
    if "cls" in header:
        return str(header["cls"]), config
    if "schema" in header:
        raise unsupported("saev", f"a header of schema {header['schema']} without an activation")
    return "Relu", {}
