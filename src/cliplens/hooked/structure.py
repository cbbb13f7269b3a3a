"""Look at the modules of a stock model: how they are put together, and what somebody changed in them.

A tower is proved against its stock model once (`cliplens.hooked.proof`). The proof holds as long as the structure
stays: the same modules of the same classes, nothing replaced on them, the same hooks. The walk is kept cheap because it
runs at every hooked forward pass.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from types import FunctionType
from typing import Any

from torch import nn

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
KNOWN = frozenset({"torch", "open_clip", "timm", "transformers", "cliplens", "cliplens_hooks"})
"""Packages whose classes the adapters are tested on."""


def modules_of(stock: nn.Module) -> list[nn.Module]:
    """Return a module and all its descendants; one that is shared by two parents comes twice."""
    found, waiting = [], [stock]
    while waiting:
        module = waiting.pop()
        found.append(module)
        waiting.extend(child for child in module.__dict__["_modules"].values() if child is not None)
    return found


def structure(stock: nn.Module) -> list[Any]:
    """Return what has to stay for a proof to hold; compare two of them with `==`.

    Every module, its class, the class's forward, the number of attributes it has of its own and its hooks.
    """
    found: list[Any] = []
    for module in modules_of(stock):
        own = module.__dict__
        found += (module if module is not stock else None, module.__class__, module.__class__.forward, len(own))
        for hooks in HOOKS:
            if own[hooks]:
                found.append(tuple(own[hooks]))
    return found


@contextmanager
def in_eval_mode(stock: nn.Module) -> Iterator[None]:
    """Put every module of a stock model into eval mode for the block; on leaving each has the mode it had."""
    flipped = [module for module in modules_of(stock) if module.__dict__["training"]]
    try:
        for module in flipped:
            module.__dict__["training"] = False
        yield
    finally:
        for module in flipped:
            module.__dict__["training"] = True


def has_hooks(module: nn.Module) -> bool:
    """Return whether somebody registered hooks on a stock module."""
    own = module.__dict__
    return bool(own["_forward_hooks"] or own["_forward_pre_hooks"] or own["_backward_hooks"])


def called_as(stock: nn.Module, compute: Any, *given: Any, **named: Any) -> Any:
    """Call `compute` in the place of the module's forward, so that hooks on the module run as ever."""
    if not (has_hooks(stock) or stock.__dict__["_backward_pre_hooks"]):
        return compute(*given, **named)
    before = stock.__dict__.get("forward")
    stock.__dict__["forward"] = compute
    try:
        return stock(*given, **named)
    finally:
        if before is None:
            del stock.__dict__["forward"]
        else:
            stock.__dict__["forward"] = before


def changes(stock: nn.Module) -> dict[str, str]:
    """Return what differs from the stock classes, by module name: classes, methods, hooks, parametrisations."""
    return {name: why for name, module in stock.named_modules() if (why := _change(module)) is not None}


def _change(module: nn.Module) -> str | None:
    kind = type(module)
    home = kind.__module__
    if home == "torch.nn.utils.parametrize":
        return f"a parametrised {kind.__mro__[1].__name__}"
    if home.split(".")[0] == "peft":
        return f"a {kind.__name__} of peft, which carries a LoRA or another adapter"
    if home.split(".")[0] not in KNOWN:
        return f"the class {kind.__name__} of {home}"
    replaced = [name for name, value in vars(module).items() if _shadows(kind, name, value)]
    replaced += [name for cls in kind.__mro__ for name, value in vars(cls).items() if _is_foreign(value)]
    if replaced:
        return f"a {kind.__name__} whose {', '.join(sorted(set(replaced)))} was replaced"
    registered = sum(len(vars(module)[hooks]) for hooks in HOOKS)
    return f"a {kind.__name__} with forward or backward hooks of yours ({registered})" if registered else None


def _shadows(kind: type, name: str, value: Any) -> bool:
    return callable(value) and callable(getattr(kind, name, None))


def _is_foreign(value: Any) -> bool:
    home = value.__globals__.get("__name__", "") if isinstance(value, FunctionType) else ""
    return bool(home) and home.split(".")[0] not in KNOWN | {"abc", "typing", "functools", "contextlib", "beartype"}
