"""Inspect the modules of a stock model, and find changes made to them.

A tower is compared with its stock model once (`cliplens.hooked.proof`). The result holds as long as the structure is
the same: modules, their classes, replaced attributes and hooks. The walk over the modules must be cheap, because it
runs at every hooked forward pass.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from types import FunctionType
from typing import Any

from torch import nn

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
KNOWN = frozenset({"torch", "open_clip", "timm", "transformers", "cliplens", "cliplens_hooks"})
"""Packages with the module classes that the adapters are tested on."""


def modules_of(stock: nn.Module) -> list[nn.Module]:
    """Return a module and all its descendants. A module with two parents is listed twice."""
    found, waiting = [], [stock]
    while waiting:
        module = waiting.pop()
        found.append(module)
        waiting.extend(child for child in module.__dict__["_modules"].values() if child is not None)
    return found


def structure(stock: nn.Module) -> list[Any]:
    """Return a description of the modules. While it is equal (`==`), a comparison with the stock model stays valid.

    It lists every module with its class, the class's forward, the number of its own attributes and its hooks.
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
    """Put every module of a stock model into eval mode for the `with` block, then restore each mode."""
    flipped = [module for module in modules_of(stock) if module.__dict__["training"]]
    try:
        for module in flipped:
            module.__dict__["training"] = False
        yield
    finally:
        for module in flipped:
            module.__dict__["training"] = True


def has_hooks(module: nn.Module) -> bool:
    """Return whether a stock module has forward hooks or pre-hooks."""
    own = module.__dict__
    return bool(own["_forward_hooks"] or own["_forward_pre_hooks"] or own["_backward_hooks"])


def called_as(stock: nn.Module, compute: Any, *given: Any, **named: Any) -> Any:
    """Call `compute` in place of the module's forward. Hooks on the module run as usual."""
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
    """Return the differences from the stock classes by module name: classes, methods, hooks, parametrisations."""
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
