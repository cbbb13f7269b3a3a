"""Read the weight a linear layer really applies, where a LoRA or another adapter lies around it."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from cliplens.errors import InputError


def is_adapted(module: Any) -> bool:
    """Return whether a peft adapter is wrapped around the layer."""
    return hasattr(module, "get_base_layer") and hasattr(module, "active_adapters")


def applied_weight(linear: Any) -> Float[Tensor, "d_out d_in"]:
    """Return the matrix a linear layer multiplies by: its own weight, or that of layer and adapter together.

    An adapted layer is measured: it is applied to the unit vectors, which holds for every adapter that stays linear.
    """
    if not is_adapted(linear):
        return linear.weight
    base = linear.get_base_layer().weight
    eye = torch.eye(base.shape[1], dtype=base.dtype, device=base.device)
    return (linear(eye) - linear(torch.zeros_like(eye[:1]))).T


def applied_bias(linear: Any) -> Float[Tensor, " d_out"] | None:
    """Return the offset a linear layer adds."""
    if not is_adapted(linear):
        return linear.bias
    return linear.get_base_layer().bias


def packed_weights(attn: Any) -> tuple[Tensor, Tensor]:
    """Return `in_proj_weight` and `out_proj.weight` of an `nn.MultiheadAttention`.

    Raises:
        InputError: an adapter of peft is active on it. peft merges it into both weights for the length of a call, and
            what it merges into the second has changed between its versions, so the weights cannot be read.
    """
    if not is_adapted(attn):
        return attn.in_proj_weight, attn.out_proj.weight
    if not (attn.disable_adapters or attn.merged):
        raise InputError(
            expected="attention without an unmerged adapter",
            found="a LoRA of peft on nn.MultiheadAttention",
            fix="merge it: merge_and_unload() of the PeftModel, or merge() of the layer",
        )
    out = attn.get_base_layer().out_proj
    return attn.get_base_layer().in_proj_weight, (out.get_base_layer() if is_adapted(out) else out).weight
