"""Public names do not get lost: each name once exported is still there, perhaps with a DeprecationWarning."""

import ast
import json
import re
import warnings
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import cliplens

ROOT = Path(__file__).parents[1]
STORED = ROOT / "tests" / "golden" / "public_names.json"
HOMES = {"cliplens": ROOT / "src", "cliplens_hooks": ROOT / "hooks", "cliplens_plugins": ROOT / "plugins"}


def exported() -> Iterator[str]:
    """Yield "package:name" for each name that the __init__ of a package exports (`import X as X`)."""
    for package, home in HOMES.items():
        for path in sorted((home / package).rglob("__init__.py")):
            module = ".".join(path.parent.relative_to(home).parts)
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ImportFrom):
                    yield from (f"{module}:{alias.name}" for alias in node.names if alias.asname == alias.name)
    yield from (f"cliplens:{name}" for name in cliplens.__all__)


def has(place: str) -> bool:
    """Return whether a name can still be imported from its package."""
    module, name = place.split(":")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return hasattr(import_module(module), name)
        except ModuleNotFoundError:
            return False


def test_no_public_name_is_lost() -> None:
    names = json.loads(STORED.read_text())
    assert [name for name in names if not has(name)] == []
    assert len(names) == len(set(names))


def test_the_stub_of_the_package_names_what_it_exports() -> None:
    stub = (ROOT / "src" / "cliplens" / "__init__.pyi").read_text()
    assert sorted(re.findall(r"import (\w+) as \1$", stub, re.MULTILINE)) == sorted(cliplens.__all__)
    for module, name in re.findall(r"^from (\S+) import (\w+) as", stub, re.MULTILINE):
        assert getattr(import_module(module), name) is getattr(cliplens, name)


if __name__ == "__main__":  # stores the names, in a release that adds some: python tests/test_public_names.py
    STORED.write_text(json.dumps(sorted({*json.loads(STORED.read_text()), *exported()}), indent=1) + "\n")
