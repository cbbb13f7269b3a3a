"""The package imports its exports on first use."""

import subprocess
import sys
from importlib import import_module
from typing import Any

import pytest

from cliplens import contracts, edits, records
from cliplens_plugins import generators, steering


def test_a_name_is_what_its_module_says_even_after_all_modules_are_imported() -> None:
    assert "steer" in steering.__all__
    for name, module in steering._exports.items():
        assert getattr(steering, name) is getattr(import_module(module), name)


def test_the_command_can_be_listed_without_torch() -> None:
    code = "import sys, cliplens_plugins.steering.command; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", sorted(steering._MOVED))
def test_names_that_moved_to_the_core_are_importable_with_a_warning(name: str) -> None:
    with pytest.warns(DeprecationWarning, match=rf"cliplens\.edits\.{name}"):
        assert getattr(steering, name) is getattr(edits, name)


@pytest.mark.parametrize(
    ("module", "old", "home", "new"),
    [
        (records, "Edit", edits, "Edit"),
        (contracts, "Reader", contracts, "AttributeReader"),
        (generators, "WorldJudge", generators, "WorldFactorReader"),
        (generators, "load_judge", generators, "load_factor_reader"),
        (generators, "train_judge", generators, "train_factor_reader"),
    ],
)
def test_renamed_names_are_importable_with_a_warning(module: Any, old: str, home: Any, new: str) -> None:
    with pytest.warns(DeprecationWarning, match=new):
        assert getattr(module, old) is getattr(home, new)
