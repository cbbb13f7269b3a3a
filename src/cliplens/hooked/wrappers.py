"""Find the model inside wrappers such as `torch.compile` and DistributedDataParallel."""

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from cliplens.errors import InputError, MismatchError


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


def check_weights(model: nn.Module) -> None:
    """Refuse a model whose weights cannot be read as numbers.

    Raises:
        MismatchError: weights on the meta device, or quantised ones.
    """
    for name, weight in model.named_parameters():
        if weight.is_meta:
            raise MismatchError(
                expected="a model whose weights are in memory",
                found=f"{name!r} on the meta device, as sequential offloading leaves weights",
                fix="load the model without offloading",
            )
        if not weight.is_floating_point():
            raise _quantised(f"{name!r} of dtype {str(weight.dtype).removeprefix('torch.')}")
    for name, module in model.named_modules():
        if ".quantized" in type(module).__module__:
            raise _quantised(f"{name!r}, a {type(module).__name__} of {type(module).__module__}")


def _quantised(found: str) -> MismatchError:
    return MismatchError(
        expected="floating-point weights", found=f"{found}, a quantised model", fix="load it without quantisation"
    )


def wrapped_parts(model: nn.Module) -> list[str]:
    """Return the names of the modules inside a model that somebody put into a wrapper, and how each is taken out."""
    found = []
    for name, module in model.named_modules():
        inside = "_orig_mod" if _kinds(module).get("OptimizedModule") == "torch" else "module"
        if inside == "_orig_mod" or isinstance(module, DataParallel | DistributedDataParallel):
            found.append(f"{(at := attribute(name))} = {at}.{inside}")
    return found


def attribute(name: str, of: str = "model") -> str:
    """Return the Python expression for a module by its name: "blocks.0.mlp" -> "model.blocks[0].mlp"."""
    return of + "".join(f"[{part}]" if part.isdigit() else f".{part}" for part in name.split("."))


def _kinds(module: nn.Module) -> dict[str, str]:
    return {kind.__name__: kind.__module__.split(".")[0] for kind in type(module).__mro__}


def _inside(model: nn.Module) -> nn.Module | None:
    if isinstance(model, DataParallel | DistributedDataParallel):
        return model.module
    kinds = _kinds(model)
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
