"""Import what a package exports on first use, so that a command of the package is listed without importing torch."""

import ast
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any


class _LazyPackage(ModuleType):
    """A package whose exports are imported when they are asked for."""

    _exports: dict[str, str]

    def __getattr__(self, name: str) -> Any:
        home = self.__dict__.get("_exports", {}).get(name)
        if home is None:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        found = getattr(import_module(home), name)
        self.__dict__[name] = found
        return found

    def __setattr__(self, name: str, value: Any) -> None:
        # Python sets each imported submodule on its package. One named like an export would hide it.
        if not (name in self._exports and isinstance(value, ModuleType)):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._exports})


def export_lazily(package: str) -> None:
    """Make a package import its exports on first use; they are listed once, where type checkers see them too.

    Call it at the end of the package's `__init__.py`, with its exports above::

        if TYPE_CHECKING:
            from package.module import Name as Name

        export_lazily(__name__)

    Args:
        package: the package's `__name__`.
    """
    module = sys.modules[package]
    exports = dict(_listed(Path(str(module.__file__))))
    module.__dict__.update(_exports=exports, __all__=sorted(exports))
    module.__class__ = _LazyPackage


def _listed(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the name and the module of each import for type checkers in a file."""
    for block in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING":
            for line in block.body:
                if isinstance(line, ast.ImportFrom) and line.module:
                    yield from ((alias.name, line.module) for alias in line.names)
