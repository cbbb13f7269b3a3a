"""The files of `cliplens.hooked` import each other in one direction only, and old public names still work."""

import ast
import importlib
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import cliplens.hooked

PACKAGE = Path(cliplens.hooked.__file__).parent
OLD = {"Gain": "LayerScale", "fire": "call_hook", "no_gain": "no_layer_scale", "point": "hook_point"}


def imports(path: Path) -> set[str]:
    """The files of the package that a file imports, also for type checkers only."""
    found = (node.module or "" for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom))
    return {module.rpartition(".")[2] for module in found if module.startswith("cliplens.hooked.")}


def test_no_import_cycle() -> None:
    graph = {path.stem: imports(path) for path in PACKAGE.glob("*.py") if path.stem != "__init__"}
    assert list(TopologicalSorter(graph).static_order())


@pytest.mark.parametrize("old", OLD)
def test_old_names_of_the_package(old: str) -> None:
    with pytest.warns(DeprecationWarning, match=f"hooked.{old} is now cliplens.hooked.{OLD[old]}"):
        assert getattr(cliplens.hooked, old) is getattr(cliplens.hooked, OLD[old])


@pytest.mark.parametrize(
    ("old", "name", "new"),
    [
        ("open_clip", "OpenClipTower", "towers.open_clip"),
        ("open_clip_models", "OpenClipModels", "models.open_clip"),
        ("world_models", "WorldModels", "models.world"),
        ("world_training", "train", "training.world"),
    ],
)
def test_old_modules_of_adapters(old: str, name: str, new: str) -> None:
    with pytest.warns(DeprecationWarning, match=f"is now cliplens_hooks.{new}.{name}"):
        found = getattr(importlib.import_module(f"cliplens_hooks.{old}"), name)
    assert found is getattr(importlib.import_module(f"cliplens_hooks.{new}"), name)
