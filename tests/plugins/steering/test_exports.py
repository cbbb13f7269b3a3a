"""What the package exports: lazily, and all of what its stub promises."""

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from cliplens import contracts, edits, records
from cliplens_plugins import generators, steering


def test_the_stub_and_the_package_name_the_same_things() -> None:
    stub = Path(str(steering.__file__)).with_suffix(".pyi").read_text()
    promised = dict(re.findall(r"import (\w+) as (\w+)", stub))
    assert sorted(promised) == steering.__all__
    assert all(name == alias for name, alias in promised.items())


def test_a_name_is_what_its_module_says_even_after_all_modules_are_imported() -> None:
    for name, module in steering._HOME.items():
        assert getattr(steering, name) is getattr(import_module(f"cliplens_plugins.steering.{module}"), name)


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
