"""Convert the tensors of a layout to SAELens' names and shapes, and check them."""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor

from cliplens.errors import InputError, MismatchError
from cliplens.sae.foreign.activation import Activation, Kind, decide
from cliplens.sae.foreign.layout import Checkpoint, SaeSpec, unsupported
from cliplens.sae.foreign.leftovers import check_leftovers

_D_IN_KEYS = ("d_in", "input_dim", "d_model", "activation_dim", "d_vit", "n_inputs")
_D_SAE_KEYS = ("d_sae", "hidden_dim", "dict_size", "n_dirs", "n_dirs_local", "num_latents", "n_latents", "nb_concepts")
_SECTIONS = ("trainer", "cfg", "config", "sae", "model")
_UNUSED_BY_GATED = ("b_enc", "encoder.bias")
"""Biases that gated classes inherit and never add."""
_VECTORS = ("b_enc", "b_gate", "b_mag", "r_mag")


def spec_of(
    layout: str,
    checkpoint: Checkpoint,
    tensors: Mapping[str, Tensor],
    from_file: Activation,
    allowed: frozenset[Kind],
    fields: Mapping[str, Any] | None = None,
    *,
    hook_name: str | None = None,
    model_name: str | None = None,
    understood: Collection[str] = (),
) -> SaeSpec:
    """Return the specification of a dictionary from tensors under SAELens' names, and determine its activation.

    Args:
        layout: the layout's name.
        checkpoint: the checkpoint of the tensors; its configuration determines the activation.
        tensors: W_enc, W_dec, b_dec, and b_enc or the tensors of a gated dictionary.
        from_file: the activation by tensors, class or file name.
        allowed: the activations that fit the tensors.
        fields: fields of SAELens' config other than the sizes.
        hook_name: the hook of the dictionary, if known.
        model_name: the model of the dictionary, if known.
        understood: entries of the configuration about normalisation that the layout follows.
    """
    activation = decide(layout, checkpoint.config, from_file, allowed)
    if activation.kind == "gated":
        checkpoint.read.update(_UNUSED_BY_GATED)
    check_leftovers(layout, checkpoint, understood)
    fields = _with_input_bias(layout, checkpoint.config, dict(fields or {}))
    spec = _spec(tensors, activation, fields, hook_name, model_name)
    check_spec(spec, layout)
    _check_sizes(checkpoint.config, spec)
    return spec


def _with_input_bias(layout: str, config: Mapping[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields with what the configuration says of the bias that is taken from the input."""
    asked = config.get("apply_b_dec_to_input")
    if isinstance(asked, bool) and asked and not fields.get("apply_b_dec_to_input", True):
        raise unsupported(layout, "apply_b_dec_to_input=True in its configuration, for tensors without an input bias")
    return {**fields, "apply_b_dec_to_input": False} if asked is False else fields


def matrix(state: Mapping[str, Any], name: str, layout: str) -> Tensor:
    """Return a tensor of the checkpoint by name.

    Raises:
        InputError: it is missing, or not a tensor.
    """
    found = state.get(name)
    if not isinstance(found, Tensor):
        listed = ", ".join(sorted(map(str, state))[:8]) or "nothing"
        raise InputError(
            expected=f"the tensor {name!r} of a checkpoint of the {layout} layout",
            found=listed if found is None else type(found).__name__,
            fix="pass the whole checkpoint, or its layout with layout= (--layout on the command line)",
        )
    return found


def check_spec(spec: SaeSpec, layout: str) -> None:
    """Check that tensors form a dictionary.

    Raises:
        InputError: integers, non-finite numbers, no latents, or k above the number of latents.
        MismatchError: shapes do not fit together.
    """
    W_enc, W_dec = spec.tensors["W_enc"], spec.tensors["W_dec"]
    for name, tensor in spec.tensors.items():
        _check_numbers(name, tensor, layout)
    if W_dec.ndim != 2 or 0 in W_dec.shape:
        raise InputError(
            expected=f"a decoder of a dictionary of the {layout} layout, one row per latent",
            found=f"a tensor of shape {tuple(W_dec.shape)}",
            fix="pass the checkpoint of a dictionary with at least one latent",
        )
    d_sae, d_in = W_dec.shape
    shapes = {"W_enc": (d_in, d_sae), "b_dec": (d_in,), "threshold": (d_sae,), **dict.fromkeys(_VECTORS, (d_sae,))}
    for name, shape in shapes.items():
        if name in spec.tensors and tuple(spec.tensors[name].shape) != shape:
            raise MismatchError(
                expected=f"{name} of shape {shape} for the decoder of {d_sae} latents and {d_in} inputs that the"
                f" {layout} layout gives",
                found=f"shape {tuple(spec.tensors[name].shape)} (encoder {tuple(W_enc.shape)})",
                fix="pass the layout of the checkpoint with layout=, or transpose the weights and save them again",
            )
    k = spec.config.get("k")
    if k is not None and not 1 <= k <= d_sae:
        raise InputError(
            expected=f"k from 1 to {d_sae}, the number of latents", found=f"k={k}", fix="correct the configuration"
        )


def _check_numbers(name: str, tensor: Tensor, layout: str) -> None:
    if not tensor.is_floating_point():
        raise InputError(
            expected=f"{name} of a dictionary of the {layout} layout as floating-point numbers",
            found=str(tensor.dtype),
            fix="save the weights again in float32",
        )
    wrong = tensor.isnan() if name == "threshold" else ~tensor.isfinite()
    if wrong.any():
        raise InputError(
            expected=f"finite weights in {name}",
            found=f"{int(wrong.sum())} that are nan or infinite",
            fix="pass a checkpoint from before the training diverged",
        )


def _check_sizes(config: Mapping[str, Any], spec: SaeSpec) -> None:
    d_sae, d_in = spec.tensors["W_dec"].shape
    for section in (config, *(config[s] for s in _SECTIONS if isinstance(config.get(s), Mapping))):
        for keys, size, meaning in ((_D_IN_KEYS, d_in, "inputs"), (_D_SAE_KEYS, d_sae, "latents")):
            for key in keys:
                said = section.get(key)
                if isinstance(said, int) and not isinstance(said, bool) and said not in (0, size):
                    raise MismatchError(
                        expected=f"weights with {said} {meaning}, as the configuration's {key} says",
                        found=f"{size} {meaning}",
                        fix="pair the weights with the configuration they were saved with",
                    )


def _spec(
    tensors: Mapping[str, Tensor],
    activation: Activation,
    fields: dict[str, Any],
    hook_name: str | None,
    model_name: str | None,
) -> SaeSpec:
    if activation.kind == "topk":
        return SaeSpec("topk", tensors, {**fields, "k": activation.k}, hook_name, model_name)
    if activation.kind in ("batchtopk", "jumprelu"):
        assert activation.threshold is not None
        threshold = activation.threshold.detach().float()
        if activation.kind == "batchtopk":
            threshold = threshold.clamp_min(0)  # Its codes follow a ReLU, so a negative threshold has no effect.
        full = threshold.expand(len(tensors["W_dec"])) if threshold.ndim == 0 else threshold.flatten()
        return SaeSpec("jumprelu", {**tensors, "threshold": full}, fields, hook_name, model_name)
    architecture = "gated" if activation.kind == "gated" else "standard"
    return SaeSpec(architecture, tensors, fields, hook_name, model_name)


def zeros_like_bias(weight: Shaped[Tensor, "d_sae d_in"]) -> Tensor:
    """Return a zero bias of the width of the decoder rows, for layouts without a bias."""
    return torch.zeros(weight.shape[1], dtype=weight.dtype)
