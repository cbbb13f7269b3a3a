"""Find the model inside wrappers such as `torch.compile` and DistributedDataParallel."""

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from cliplens.errors import InputError


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model inside `torch.compile`, DataParallel, DistributedDataParallel or a peft `PeftModel`.

    Weights stay shared. LoRA layers stay in the model.

    Raises:
        InputError: `model` is not a module, or the wrapper is FullyShardedDataParallel, which splits the weights.
    """
    if not isinstance(model, nn.Module):
        raise InputError(
            expected="a model, an nn.Module",
            found=f"{type(model).__module__}.{type(model).__qualname__}",
            fix="pass the model itself, or load it by name with cliplens.load",
        )
    seen = model
    while (inside := _inside(seen)) is not None:
        seen = inside
    return seen


def _inside(model: nn.Module) -> nn.Module | None:
    if isinstance(model, DataParallel | DistributedDataParallel):
        return model.module
    kinds = {kind.__name__: kind.__module__.split(".")[0] for kind in type(model).__mro__}
    if kinds.get("OptimizedModule") == "torch":
        return model._orig_mod  # type: ignore[return-value]
    if kinds.get("PeftModel") == "peft":
        return model.get_base_model()  # type: ignore[operator]
    if kinds.get("FullyShardedDataParallel") == "torch":
        raise InputError(
            expected="a model with all its weights in this process",
            found="FullyShardedDataParallel, which holds a part of the weights",
            fix="save the full state dict, load it into the plain model, and wrap the plain model",
        )
    return None
