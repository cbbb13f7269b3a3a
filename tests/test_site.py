"""The site: every page is in its navigation, the commands are documented, and it builds without a warning."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from typer import Context
from typer.core import TyperGroup
from typer.main import get_command

import cliplens
from cliplens.cli import app

pytest.importorskip("mkdocs")
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("site_hooks", ROOT / "docs" / "site_hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_page_is_in_the_navigation() -> None:
    text = (ROOT / "mkdocs.yml").read_text().split("\nnav:\n")[1]
    named = set(re.findall(r"([\w/-]+\.(?:md|ipynb))$", text, re.MULTILINE))
    docs = ROOT / "docs"
    there = {str(p.relative_to(docs)) for p in [*docs.rglob("*.md"), *docs.rglob("*.ipynb")]}
    assert there - named == set()
    assert named - there == {"reference/commands.md", "contributing.md", "changelog.md"}


def test_the_version_is_that_of_the_package(hooks: ModuleType) -> None:
    assert hooks.version() == cliplens.__version__
    assert f"version: {cliplens.__version__}" in (ROOT / "CITATION.cff").read_text()


def test_every_command_and_option_is_documented(hooks: ModuleType) -> None:
    page = hooks.commands()
    group = get_command(app)
    assert isinstance(group, TyperGroup)
    for name in group.list_commands(Context(group)):
        assert f"## cliplens {name}\n" in page
    assert "| `--d-sae` |" in page
    assert "| `--classes` | required |" in page
    assert "### cliplens export neuronpedia\n" in page


def test_links_that_leave_the_pages_lead_to_pages(hooks: ModuleType) -> None:
    assert hooks.outward("[a](../CONTRIBUTING.md#adding-a-tower)") == "[a](contributing.md#adding-a-tower)"
    assert hooks.outward("see [b](../examples/README.md)") == "see b"
    assert hooks.outward("[c](https://x.org) ![d](images/d.png)") == "[c](https://x.org) ![d](images/d.png)"
    assert hooks.from_root("[e](docs/hooks.md) and [f](CHANGELOG.md)") == "[e](hooks.md) and [f](changelog.md)"


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_asks_for_nothing(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    pages = sorted((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 50
    wanted = r"<(?:script|link|img)[^>]+(?:src|href)=[\"']?https?://(?!127)"
    outside = [str(p) for p in pages if re.search(wanted, p.read_text(encoding="utf-8"))]
    assert outside == []
    assert 'src="../assets/iframe-worker.js"' in (tmp_path / "site" / "reference" / "api.html").read_text()
    assert (tmp_path / "site" / "assets" / "iframe-worker.js").exists()
    assert (tmp_path / "site" / "search" / "search_index.js").exists()
