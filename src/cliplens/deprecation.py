"""Keep old public names importable for a while, with a `DeprecationWarning` that says the new name."""

import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def deprecated_names(module_name: str, moved: Mapping[str, str]) -> Callable[[str], Any]:
    """Return a module `__getattr__` that forwards old names to their new homes, with a warning.

    Assign it in the module that held the names::

        __getattr__ = deprecated_names(__name__, {"Heat": "cliplens.records:PositionActivations"})

    A target without a colon is a module.

    Args:
        module_name: the module's `__name__`.
        moved: old name -> `"package.module:NewName"`.
    """

    def __getattr__(name: str) -> Any:  # noqa: N807  it is a module's __getattr__
        target = moved.get(name)
        if target is None:
            raise AttributeError(f"module {module_name!r} has no attribute {name!r}")
        home, _, attribute = target.partition(":")
        warnings.warn(
            f"{module_name}.{name} is now {target.replace(':', '.')}; the old name will go in a later version",
            DeprecationWarning,
            stacklevel=2,
        )
        module = import_module(home)
        return getattr(module, attribute) if attribute else module

    return __getattr__
