"""Convert OpenAI's sparse_autoencoder and sdxl-unbox, which uses its class.

    codes = act((norm(x) - pre_bias) E + latent_bias);  out = codes D + pre_bias, norm undone

Tensors are `encoder.weight` [latent, input], `latent_bias`, `pre_bias`, `decoder.weight` [input, latent]. A checkpoint
of OpenAI's library also holds `activation` and `activation_state_dict`; its TopK goes with a layer norm of the input.
A `config.json` with `k` and `auxk` belongs to the training class, which is TopK without a norm.
"""

from collections.abc import Mapping
from typing import Any

from cliplens.sae.foreign.activation import Activation, Kind, configured_activation
from cliplens.sae.foreign.layout import Checkpoint, ForeignLayout, SaeSpec, unsupported
from cliplens.sae.foreign.weights import matrix, spec_of


class OpenAI(ForeignLayout):
    """Dictionaries of openai/sparse_autoencoder and surkovv/sdxl-unbox."""

    name = "openai"

    def recognises(self, checkpoint: Checkpoint) -> bool:
        """Return whether it holds encoder.weight, latent_bias and pre_bias."""
        return {"encoder.weight", "latent_bias", "pre_bias"} <= checkpoint.state.keys()

    def to_spec(self, checkpoint: Checkpoint) -> SaeSpec:
        """Return a standard or topk dictionary."""
        state, config = checkpoint.state, checkpoint.config
        encoder = matrix(state, "encoder.weight", self.name)
        tensors = {
            "W_enc": encoder.T,
            "b_enc": matrix(state, "latent_bias", self.name),
            "W_dec": matrix(state, "decoder.weight", self.name).T if "decoder.weight" in state else encoder,
            "b_dec": matrix(state, "pre_bias", self.name),
        }
        saved = _saved_activation(state)
        from_file = Activation("topk") if saved.kind is None and _is_training_class(config) else saved
        normalised = config.get("normalize", saved.kind == "topk")
        fields = {"normalize_activations": "layer_norm"} if normalised else {}
        kinds: frozenset[Kind] = frozenset({"relu", "topk"})
        return spec_of(self.name, checkpoint, tensors, from_file, kinds, fields, understood=("normalize",))


def _saved_activation(state: Mapping[str, Any]) -> Activation:
    """Return the activation that the state dict names."""
    if not isinstance(state.get("activation"), str):
        return Activation()
    options = state.get("activation_state_dict")
    k = options.get("k") if isinstance(options, Mapping) else None
    behind = options.get("postact_fn", "ReLU") if isinstance(options, Mapping) else "ReLU"
    if behind != "ReLU":
        raise unsupported("openai", f"{behind} behind the TopK, where SAELens has a ReLU")
    named: dict[str, Any] = {"activation": state["activation"]}
    return configured_activation(named if k is None else {**named, "k": int(k)})


def _is_training_class(config: Mapping[str, Any]) -> bool:
    return "k" in config and ("auxk" in config or "dead_steps_threshold" in config)
