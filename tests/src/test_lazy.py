"""Packages that import what they export on first use."""

import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from cliplens.lazy import export_lazily


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A package that exports a function from a module of the same name."""
    home = tmp_path / "lazy_example"
    home.mkdir()
    (home / "__init__.py").write_text(
        "from typing import TYPE_CHECKING\n"
        "from cliplens.lazy import export_lazily\n"
        "if TYPE_CHECKING:\n"
        "    from lazy_example.double import double as double\n"
        "export_lazily(__name__)\n"
    )
    (home / "double.py").write_text("def double(x):\n    return 2 * x\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield import_module("lazy_example")
    for name in [name for name in sys.modules if name.split(".")[0] == "lazy_example"]:
        del sys.modules[name]


def test_an_export_is_imported_on_first_use(package: ModuleType) -> None:
    assert "lazy_example.double" not in sys.modules
    assert "double" in dir(package)
    assert package.double(2) == 4
    assert package.__all__ == ["double"]
    with pytest.raises(AttributeError, match="'lazy_example' has no attribute 'triple'"):
        _ = package.triple


def test_a_module_does_not_hide_an_export_of_its_name(package: ModuleType) -> None:
    module = import_module("lazy_example.double")
    assert module.double is package.double
    from lazy_example import double

    assert double(3) == 6


def test_every_lazy_package_has_what_it_exports() -> None:
    """In a process of its own, after all its modules are imported."""
    from test_public_names import HOMES, ROOT

    lazy = [
        ".".join(path.parent.relative_to(home).parts)
        for home in HOMES.values()
        for path in sorted(home.rglob("__init__.py"))
        if f"{export_lazily.__name__}(__name__)" in path.read_text(encoding="utf-8")
    ]
    assert len(lazy) > 10
    code = f"""
from importlib import import_module
from types import ModuleType
for name in {lazy}:
    package = import_module(name)
    for home in set(package._exports.values()):
        import_module(home)
    wrong = [n for n in package.__all__ if isinstance(getattr(package, n), ModuleType)]
    assert package.__all__ and not wrong, (name, wrong)
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
