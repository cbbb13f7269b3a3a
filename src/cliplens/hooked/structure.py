"""Inspect the modules of a stock model, and find changes made to them.

A tower is compared with its stock model once (`cliplens.hooked.proof`). The result holds as long as the structure is
the same: modules, their classes, replaced attributes and hooks. The walk over the modules must be cheap, because it
runs at every hooked forward pass.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from threading import Lock
from types import FunctionType
from typing import Any

from torch import nn
from torch.nn.modules import module as torch_module

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
KNOWN = frozenset({"torch", "open_clip", "timm", "transformers", "cliplens", "cliplens_hooks"})
"""Packages with the module classes that the adapters are tested on."""
_GLOBAL_HOOKS = (
    torch_module._global_forward_hooks,
    torch_module._global_forward_pre_hooks,
    torch_module._global_backward_hooks,
)
_VALUES = (bool, int, float, str, tuple, type(None))
_EVERY_MODULE = "every module"
_lock = Lock()
_held: dict[nn.Module, int] = {}
"""Number of `with` blocks that currently keep a module in eval mode, for modules whose own mode is training."""


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

    It lists every module with its class, the class's forward, the number of its own attributes and its hooks; the
    methods of every class that is not torch's own; and the hooks that torch runs on every module.
    """
    found: list[Any] = [global_hooks()]
    classes: dict[type, None] = {}
    for module in modules_of(stock):
        own = module.__dict__
        kind = module.__class__
        classes[kind] = None
        found += (module if module is not stock else None, kind, kind.forward, len(own))
        for hooks in HOOKS:
            if own[hooks]:
                found.append(tuple(own[hooks]))
    found += [method for kind in classes for cls in _own_classes(kind) for method in _methods(cls)]
    return found


def composition(stock: nn.Module) -> tuple[Any, ...]:
    """Return the structure of a module: names, classes, plain values and names of tensors, without the tensors."""
    return tuple(
        (
            name,
            module.__class__,
            tuple(values_of([module])),
            tuple(key for key, value in module._parameters.items() if value is not None),
            tuple(key for key, value in module._buffers.items() if value is not None),
        )
        for name, module in stock.named_modules()
    )


def values_of(modules: Iterable[nn.Module]) -> list[Any]:
    """Return the plain values modules hold (switches, factors), their mode left out."""
    return [
        (key, value)
        for module in modules
        for key, value in vars(module).items()
        if key != "training" and isinstance(value, _VALUES)
    ]


def global_hooks() -> tuple[Any, ...]:
    """Return the hooks that torch runs at every module, whoever registered them."""
    return tuple(hook for hooks in _GLOBAL_HOOKS if hooks for hook in hooks.values())


def _own_classes(kind: type) -> list[type]:
    return [cls for cls in kind.__mro__ if not cls.__module__.startswith(("torch.", "builtins"))]


def _methods(cls: type) -> list[Any]:
    return [v for v in vars(cls).values() if isinstance(v, FunctionType | property)]


@contextmanager
def in_eval_mode(stock: nn.Module) -> Iterator[None]:
    """Put every module of a stock model into eval mode for the `with` block, then restore each mode.

    Several threads may be inside at once: a module gets its mode back when the last of them leaves.
    """
    kept = _keep(stock)
    try:
        yield
    finally:
        if kept:
            _release(kept)


def _keep(stock: nn.Module) -> list[nn.Module]:
    with _lock:
        kept = [m for m in modules_of(stock) if m.__dict__["training"] or m in _held]
        for module in kept:
            _held[module] = _held.get(module, 0) + 1
            module.__dict__["training"] = False
    return kept


def _release(kept: list[nn.Module]) -> None:
    with _lock:
        for module in kept:
            _held[module] -= 1
            if not _held[module]:
                del _held[module]
                module.__dict__["training"] = True


def has_hooks(module: nn.Module) -> bool:
    """Return whether a stock module has forward hooks or pre-hooks."""
    own = module.__dict__
    return bool(own["_forward_hooks"] or own["_forward_pre_hooks"] or own["_backward_hooks"])


def called_as(stock: nn.Module, compute: Any, *given: Any, **named: Any) -> Any:
    """Call `compute` in place of the module's forward. Hooks on the module run as usual."""
    if not (has_hooks(stock) or stock.__dict__["_backward_pre_hooks"] or global_hooks()):
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
    found = {name: why for name, module in stock.named_modules() if (why := change(module)) is not None}
    if hooks := global_hooks():
        found[_EVERY_MODULE] = f"under hooks that torch runs at all modules ({len(hooks)})"
    return found


def change(module: nn.Module) -> str | None:
    """Describe the change of a module compared with its class in the package it comes from; None if unchanged."""
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
