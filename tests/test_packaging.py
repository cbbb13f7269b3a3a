"""pyproject.toml tells the truth: every import is declared, and every dependency has a bound and a reason."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import metadata, packages_distributions
from pathlib import Path

import cliplens

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PACKAGES = [*ROOT.glob("src/*/"), *ROOT.glob("hooks/*/"), *ROOT.glob("plugins/*/")]
OWN = {package.name for package in PACKAGES}


def normalised(requirement: str) -> str:
    """Return the name of a requirement in the form of PEP 503."""
    return re.sub(r"[-_.]+", "-", re.split(r"[<>=!~\[; ]", requirement)[0]).lower()


def imports(file: Path) -> Iterator[str]:
    """Yield the top-level names a file imports."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield str(node.module).split(".")[0]


def declared(*extras: str) -> set[str]:
    """Return the distributions named by the dependencies and the extras."""
    lists = [PROJECT["dependencies"], *(PROJECT["optional-dependencies"][extra] for extra in extras)]
    return {normalised(line) for lines in lists for line in lines}


def test_every_import_of_the_packages_is_declared() -> None:
    known = declared(*PROJECT["optional-dependencies"])
    brought_by = packages_distributions()
    missing = {}
    for file in (file for package in PACKAGES for file in package.rglob("*.py")):
        for name in set(imports(file)) - OWN - sys.stdlib_module_names:
            if not known & {normalised(found) for found in brought_by.get(name, [name])}:
                missing[name] = str(file.relative_to(ROOT))
    assert missing == {}


def test_every_dependency_has_a_bound_and_a_reason() -> None:
    lines = re.findall(r'^    "[^"]+",.*$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    every = declared(*PROJECT["optional-dependencies"])
    found = {line: line.split('"')[1] for line in lines if normalised(line.split('"')[1]) in every}
    assert len(found) >= len(every)
    assert [line for line, asked in found.items() if "# " not in line] == []
    assert [line for line, asked in found.items() if ">=" not in asked and not asked.startswith("cliplens[")] == []


def test_dev_brings_every_extra_the_tests_use() -> None:
    (own,) = (line for line in PROJECT["optional-dependencies"]["dev"] if line.startswith("cliplens["))
    assert set(own[len("cliplens[") : -1].split(",")) >= {"agree", "endpoint", "diffusion"}


def licences() -> dict[str, str]:
    """Return dependency -> licence, as docs/security.md lists them."""
    text = (ROOT / "docs" / "security.md").read_text()
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", text.split("| licence | dependencies |")[1].split("\n\n")[0], re.M)
    return {name: licence for licence, names in rows for name in names.split(", ")}


def test_every_dependency_has_a_known_licence() -> None:
    listed = licences()
    assert set(listed) == declared()
    for name, licence in listed.items():
        held = metadata(name)
        classifiers = " ".join(c for c in held.get_all("Classifier") or [] if c.startswith("License"))
        said = f"{held.get('License-Expression')} {held.get('License')} {classifiers}".replace("Apache ", "Apache-2.0 ")
        assert [part for part in re.split(" AND ", licence) if part not in said] == [], (name, said)


def test_one_version_stands_everywhere() -> None:
    assert PROJECT["version"] == cliplens.__version__
    heads = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert heads[:2] == ["Unreleased", cliplens.__version__]
