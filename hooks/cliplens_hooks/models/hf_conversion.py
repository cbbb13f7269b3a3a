"""Convert transformers' CLIP, SigLIP and SigLIP 2, or one encoder of them, to open_clip models.

transformers stores q, k and v separately and open_clip packs them. So tensors are copied, with LoRA and other adapters
merged into the copies. The original object is not altered.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from cliplens.errors import MismatchError
from cliplens.hooked import is_adapted
from cliplens_hooks.models.hf_architecture import empty_model
from cliplens_hooks.models.hf_state import KINDS, TEXT_ONLY, State, convert_state

VISION_ONLY = ("clip_vision_model", "siglip_vision_model", "siglip2_vision_model")
SUPPORTED = (*KINDS, *TEXT_ONLY, *VISION_ONLY)
"""Values of `config.model_type` that can be converted."""


def to_open_clip(model: nn.Module) -> nn.Module:
    """Return an open_clip model with the weights of a transformers CLIP or SigLIP, or of one encoder of them.

    Raises:
        MismatchError: open_clip has no equivalent of the configuration, or the weights are quantised.
    """
    stock: Any = model
    kind = stock.config.model_type
    state = _effective_state(stock)
    with torch.device("meta"):
        made = empty_model(stock, kind)
    made = made.to_empty(device="cpu")
    _fill_buffers(made)
    try:
        made.load_state_dict(convert_state(state, stock, kind))
    except (RuntimeError, KeyError) as error:
        raise MismatchError(
            expected=f"the layout of transformers' {type(stock).__name__}",
            found=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}",
            fix="merge adapters and undo changes of the layers first, or report the model's name to cliplens",
        ) from error
    weights = [p for p in stock.parameters() if p.is_floating_point()]
    return made.to(device=weights[0].device, dtype=weights[0].dtype).eval()


def _effective_state(stock: nn.Module) -> State:
    """Return copies of the effective weights of a model: adapters merged and parametrisations applied."""
    if any(p.is_meta for p in stock.parameters()):
        raise MismatchError(
            expected="a model whose weights are in memory",
            found="weights on the meta device, as sequential offloading leaves them",
            fix="load the model without offloading",
        )
    if any(is_adapted(module) for module in stock.modules()):
        stock = copy.deepcopy(stock)
        for module in stock.modules():
            if is_adapted(module) and not (module.disable_adapters or module.merged):
                module.merge()  # type: ignore[operator]
    state: State = {}
    for name, value in stock.state_dict().items():
        plain = _plain_name(name, stock)
        if plain is not None and isinstance(value, Tensor):
            state[plain] = value.detach().clone()
    for name, module in stock.named_modules():
        if parametrize.is_parametrized(module):
            for tensor in module.parametrizations:
                state[f"{name}.{tensor}"] = getattr(module, tensor).detach().clone()
    for name, value in state.items():
        if not value.is_floating_point() and name.endswith("weight"):
            raise MismatchError(
                expected="floating-point weights",
                found=f"{name!r} of dtype {str(value.dtype).removeprefix('torch.')}, a quantised model",
                fix="load it without quantisation",
            )
    return state


def _plain_name(name: str, stock: Any) -> str | None:
    """Return the name of a weight without peft's additions; None for weights of adapters."""
    if ".original_module." in name or any(f".{mark}" in name for mark in ("lora_", "parametrizations.", "ranknum")):
        return None
    for adapter in getattr(stock, "peft_config", {"default": None}):
        name = name.replace(f".modules_to_save.{adapter}.", ".")
    return name.replace(".base_layer.", ".")


def _fill_buffers(made: nn.Module) -> None:
    for module in made.modules():
        mask = getattr(module, "attn_mask", None)
        if isinstance(mask, Tensor):
            mask.copy_(torch.full_like(mask, float("-inf")).triu(1))
