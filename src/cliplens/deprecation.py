"""Keep old public names and keywords working for a while, with a `DeprecationWarning` that gives the new name."""

import warnings
from collections.abc import Callable, Mapping
from functools import wraps
from importlib import import_module
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def deprecated_names(module_name: str, moved: Mapping[str, str]) -> Callable[[str], Any]:
    """Return a module `__getattr__` that forwards old names to their new homes, with a warning.

    Assign it in the module that defined the names::

        __getattr__ = deprecated_names(__name__, {"Heat": "cliplens.records:PositionActivations"})

    A target without a colon is a module.

    Args:
        module_name: the module's `__name__`.
        moved: new home, `"package.module:NewName"`, by old name.
    """

    def __getattr__(name: str) -> Any:  # noqa: N807  it is a module's __getattr__
        target = moved.get(name)
        if target is None:
            raise AttributeError(f"module {module_name!r} has no attribute {name!r}")
        home, _, attribute = target.partition(":")
        warnings.warn(
            f"{module_name}.{name} is now {target.replace(':', '.')}; the old name will be removed in a later version",
            DeprecationWarning,
            stacklevel=2,
        )
        module = import_module(home)
        return getattr(module, attribute) if attribute else module

    return __getattr__


def renamed_keywords(**new_names: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator that accepts old keywords of a function, with a warning.

    The decorated function raises a TypeError if an argument is given under its old and its new name.

    Args:
        new_names: new keyword, by old keyword.

    >>> @renamed_keywords(colour="color")
    ... def paint(color: str) -> str:
    ...     return color
    >>> with warnings.catch_warnings(action="ignore"):
    ...     paint(colour="red")
    'red'
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        name = function.__qualname__.removesuffix(".__init__")

        @wraps(function)
        def renamed(*args: P.args, **kwargs: P.kwargs) -> R:
            for old in new_names.keys() & kwargs.keys():
                new = new_names[old]
                if new in kwargs:
                    raise TypeError(f"{name} got {new!r} under its old name {old!r} too")
                message = (
                    f"the keyword {old!r} of {name} is now {new!r}; the old one will be removed in a later version"
                )
                warnings.warn(message, DeprecationWarning, stacklevel=2)
                kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return renamed

    return decorate
