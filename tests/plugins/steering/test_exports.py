"""What the package exports: lazily, and all of what its stub promises."""

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

from cliplens_plugins import steering


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
