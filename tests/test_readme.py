"""README is true: its script runs as written on the embedded world, its links lead somewhere, its commands are all."""

import re
from pathlib import Path

import pytest
from typer import Context
from typer.core import TyperGroup
from typer.main import get_command

from cliplens.cli import app

README = Path(__file__).parents[1] / "README.md"
SMALLER = {
    '"ViT-B-32", pretrained="laion2b_s34b_b79k"': '"world"',
    '"captions.csv"': '"world:600"',
    "d_sae=4096, k=32": "d_sae=64, k=4",
    "20_000_000": "6_400",
    "4096": "256",
}


def script() -> str:
    """The script a reader has after applying the README's diff."""
    found = re.search(r"```diff\n(.*?)```", README.read_text(), re.DOTALL)
    assert found is not None
    lines = [line[1:] for line in found[1].splitlines() if not line.startswith("-")]
    text = "\n".join(lines)
    for full, small in SMALLER.items():
        assert full in text, full
        text = text.replace(full, small)
    return text


@pytest.mark.filterwarnings("ignore")
def test_the_script_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(script(), "README.md", "exec"), {})
    from sae_lens import SAE

    assert SAE.load_from_disk("sae/image").cfg.d_sae == 64


def test_every_linked_file_is_there() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README.read_text())
    assert links
    assert [link for link in links if not (README.parent / link).exists()] == []


def test_the_first_screen_shows_the_two_commands() -> None:
    first = "\n".join(README.read_text().splitlines()[:20])
    assert "pip install -e ." in first
    assert "cliplens demo" in first
    assert "pip install -e '.[dev]' && pytest" in first


def test_every_command_is_listed_once() -> None:
    block = README.read_text().split("## The command line")[1].split("##")[0]
    listed = re.findall(r"^    cliplens ([a-z-]+)", block, re.MULTILINE)
    group = get_command(app)
    assert isinstance(group, TyperGroup)
    assert sorted(listed) == sorted(group.list_commands(Context(group)))
