"""Read the effective weight of a linear layer, with a LoRA or another adapter merged in."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cliplens.hooked.structure import in_eval_mode


def is_adapted(module: Any) -> bool:
    """Return whether a peft adapter is wrapped around the layer."""
    return hasattr(module, "get_base_layer") and hasattr(module, "active_adapters")


def tensor_of(module: Any, name: str) -> Tensor:
    """Return a tensor of a module in eval mode: reading a spectral norm in training mode would change its state."""
    if not hasattr(module, "parametrizations"):
        return getattr(module, name)
    with in_eval_mode(module):
        return getattr(module, name)


def applied_weight(linear: Any) -> Float[Tensor, "d_out d_in"]:
    """Return the effective weight of a linear layer: of the layer, or of layer and adapter together.

    With an adapter, the layer is applied to the unit vectors. This is exact for every linear adapter.
    """
    if not is_adapted(linear):
        return tensor_of(linear, "weight")
    base = linear.get_base_layer().weight
    eye = torch.eye(base.shape[1], dtype=base.dtype, device=base.device)
    return (linear(eye) - linear(torch.zeros_like(eye[:1]))).T


def applied_bias(linear: Any) -> Float[Tensor, " d_out"] | None:
    """Return the effective bias of a linear layer; None if it has none."""
    if not is_adapted(linear):
        return linear.bias
    return linear.get_base_layer().bias


def packed_weights(attn: Any) -> tuple[Tensor, Tensor]:
    """Return `in_proj_weight` and `out_proj.weight` of an `nn.MultiheadAttention`, adapters of peft included."""
    if not is_adapted(attn):
        return tensor_of(attn, "in_proj_weight"), tensor_of(attn.out_proj, "weight")
    base = attn.get_base_layer()
    into, out = base.in_proj_weight, base.out_proj
    if attn.disable_adapters or attn.merged:
        return into, out.get_base_layer().weight if is_adapted(out) else out.weight
    for name in (n for n in attn.active_adapters if n in attn.lora_A):
        into = into + attn.get_delta_weight(name).to(into.dtype)
    weight = out.get_base_layer().weight
    for name in (n for n in out.active_adapters if n in out.lora_A):
        weight = weight + out.get_delta_weight(name).to(weight.dtype)
    return into, weight


def plain(module: nn.Module) -> nn.Module:
    """Return the layer inside an adapter; without an adapter, the layer itself."""
    return module.get_base_layer() if is_adapted(module) else module  # type: ignore[operator]
