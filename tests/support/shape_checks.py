"""The checks of shapes and types while tests run: those of jaxtyping's import hook, at a fraction of their cost.

jaxtyping's decorator checks arguments twice per call, binds them to the signature even where it names no axis, and is
made at import, also for functions that no test calls. Here checks are made at the first call, axes are compared where
a signature names some, and arguments are checked once.
"""

import functools
import inspect
import types
import typing
from collections.abc import Callable
from typing import Any

import jaxtyping
from beartype import beartype

_of_jaxtyping = jaxtyping.jaxtyped


def use() -> None:
    """Let the import hook decorate functions and classes with `checked`; call it before the packages are imported."""
    jaxtyping.jaxtyped = _decorator


def _decorator(function: Any = None, *, typechecker: Any = None) -> Any:
    if function is None and typechecker is not None:
        return checked
    return (
        _of_jaxtyping(typechecker=typechecker) if function is None else _of_jaxtyping(function, typechecker=typechecker)
    )


def checked(item: Any) -> Any:
    """Return a function, or a data class, whose calls check types, and sizes of axes against each other."""
    if inspect.isclass(item):
        if hasattr(item, "__dataclass_fields__") and not hasattr(item.__init__, "__checks__"):
            item.__init__ = checked(item.__init__)
        return item
    if not item.__annotations__:
        return item
    checks: list[Callable[..., Any]] = []

    @functools.wraps(item)
    def call(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        if jaxtyping.config.jaxtyping_disable:
            return item(*args, **kwargs)
        if not checks:
            checks.append(_with_checks(item))
        return checks[0](*args, **kwargs)

    call.__checks__ = checks  # type: ignore[attr-defined]
    return call


def _with_checks(function: Any) -> Callable[..., Any]:
    if inspect.isgeneratorfunction(function) or inspect.iscoroutinefunction(function):
        return _of_jaxtyping(function, typechecker=beartype)  # beartype alone would check what they yield
    hints = {name: _resolved(hint, function.__globals__) for name, hint in function.__annotations__.items()}
    same = types.FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    same.__kwdefaults__ = function.__kwdefaults__
    same.__qualname__, same.__module__ = function.__qualname__, function.__module__
    same.__annotations__ = hints
    strict = beartype(same)
    return _of_jaxtyping(strict, typechecker=None) if any(map(_names_axes, hints.values())) else strict


def _resolved(hint: Any, names: dict[str, Any]) -> Any:
    """Return a hint without strings; Any where it holds a name that only type checkers import."""
    try:
        return typing.get_type_hints(types.SimpleNamespace(__annotations__={"hint": hint}), names, include_extras=True)[
            "hint"
        ]
    except Exception:
        return Any


def _names_axes(hint: Any) -> bool:
    if isinstance(hint, type) and issubclass(hint, jaxtyping.AbstractArray):
        return True
    parts = (*typing.get_args(hint), getattr(hint, "__value__", None), getattr(hint, "__bound__", None))
    return any(_names_axes(part) for part in parts if part is not None)
