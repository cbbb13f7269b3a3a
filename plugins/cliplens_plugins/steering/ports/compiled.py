"""Run modules compiled by `torch.compile` uncompiled while they are steered, because compiled code skips hooks."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn

Change = Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], tuple[tuple[Any, ...], dict[str, Any]] | None]
"""Function of (module, args, kwargs) that returns new args and kwargs, or None to keep them."""


def unwrapped(module: nn.Module) -> nn.Module:
    """Return the module inside `torch.compile(module)`; return other modules unchanged."""
    return module._orig_mod if is_wrapper(module) else module  # type: ignore[return-value]


def is_wrapper(module: Any) -> bool:
    """Return whether a module is a wrapper returned by `torch.compile`."""
    return isinstance(module, nn.Module) and "_orig_mod" in module._modules


@contextmanager
def uncompiled(module: nn.Module) -> Iterator[None]:
    """Run a module and its submodules without compiled code while the context is open."""
    with ExitStack() as stack:
        for part in module.modules():
            if is_wrapper(part):
                original: Any = part._orig_mod
                _attribute(part, "forward", original.__call__, stack)
            if part._compiled_call_impl is not None:
                _attribute(part, "_compiled_call_impl", None, stack)
        yield


def before_call(module: nn.Module, change: Change, stack: ExitStack) -> None:
    """Call `change` before every call of a module, compiled or not, until the stack closes."""
    if is_wrapper(module):
        _attribute(module, "forward", _changed(module, module.forward, change), stack)
    elif module._compiled_call_impl is not None:
        compiled: Any = module._compiled_call_impl
        _attribute(module, "_compiled_call_impl", _changed(module, compiled, change), stack)
    else:
        handle = module.register_forward_pre_hook(change, with_kwargs=True)
        stack.callback(handle.remove)


def _changed(module: nn.Module, call: Callable[..., Any], change: Change) -> Callable[..., Any]:
    def called(*args: Any, **kwargs: Any) -> Any:
        new = change(module, args, kwargs)
        args, kwargs = (args, kwargs) if new is None else new
        return call(*args, **kwargs)

    return called


def _attribute(module: nn.Module, name: str, value: Any, stack: ExitStack) -> None:
    """Set an attribute of this object until the stack closes."""
    had, before = name in module.__dict__, module.__dict__.get(name)

    def put_back() -> None:
        if had:
            module.__dict__[name] = before
        else:
            module.__dict__.pop(name, None)

    module.__dict__[name] = value
    stack.callback(put_back)
