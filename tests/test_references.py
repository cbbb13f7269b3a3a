"""Documents, scripts and folders that the text of the project names exist."""

import re
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = ("src", "hooks", "plugins", "tests", "benchmarks", "examples")
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md"), *ROOT.glob("examples/**/*.md")]
WRITTEN = {"README.md"}
"""Documents that the software itself writes, and so names without the folder they lie in."""


def existing(name: str, beside: Path) -> bool:
    """Return whether a document is there, by its path from the root, from docs/ or from the file that names it."""
    return any((folder / name).exists() for folder in (ROOT, ROOT / "docs", beside.parent)) or name in WRITTEN


def test_every_document_named_in_the_code_exists() -> None:
    missing = []
    for folder in SOURCES:
        for path in (ROOT / folder).rglob("*.py"):
            for name in re.findall(r"\b((?:[\w-]+/)*[\w-]+\.md)\b", path.read_text()):
                made_up = folder == "tests" and not name.startswith("docs/")  # files that tests write themselves
                if not made_up and not existing(name, path):
                    missing.append(f"{path.relative_to(ROOT)}: {name}")
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|mailto:)([^)#\s]+)(?:#[^)]*)?\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_script_a_page_names_exists(page: Path) -> None:
    named = re.findall(
        r"\b((?:benchmarks|examples|docs|tests|src|hooks|plugins)/[\w/-]+\.(?:py|md))\b", page.read_text()
    )
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_contributing_names_every_layer_of_the_core_in_order() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = (c["layers"] for c in contracts if c.get("containers") == ["cliplens"])
    table = (ROOT / "CONTRIBUTING.md").read_text().split("| layer | contents |")[1].split("\n\n")[0]
    written = [
        re.findall(r"`cliplens\.(\w+)`", line.split("|")[1]) for line in table.splitlines() if "`cliplens." in line
    ]
    place = {name: row for row, names in enumerate(written) for name in names}
    modules = [layer.split(" | ") for layer in layers]
    assert sorted(place) == sorted(name for layer in modules for name in layer)
    for upper, lower in pairwise(modules):
        assert max(place[name] for name in upper) <= min(place[name] for name in lower), (upper, lower)
