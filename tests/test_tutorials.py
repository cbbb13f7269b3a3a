"""The tutorials run, and their notebooks hold the same cells, with outputs."""

import json
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[1] / "docs" / "tutorials"
SOURCES = sorted(FOLDER.glob("[0-9]-*.py"))
SLOW = ("3-steer",)
"""Those that take more than twenty seconds of one core."""
SMALLER = {
    "1-own-pairs": {"world:1200": "world:800", "60_000": "15_000"},
    "2-patches": {"world:600": "world:200", "30_720": "10_240"},
    "4-match": {"world:2048": "world:512", "100_000": "20_000"},
    "5-embeddings": {"world:1500": "world:400", "60_000": "10_000"},
    "6-compare": {"world:2048": "world:400", "60000": "6000"},
    "7-bias-and-advice": {"world:2048": "world:400", "150_000": "20_000", "world:1000:3": "world:300:3"},
}
"""Numbers of pairs and samples with which a tutorial runs in seconds; it runs as it is among the slow tests."""


def cells(source: Path) -> list[tuple[str, str]]:
    """Return kind and text of each cell of a file in the percent format."""
    found = []
    for part in source.read_text(encoding="utf-8").split("# %%")[1:]:
        markdown = part.startswith(" [markdown]")
        lines = part.split("\n", 1)[1].strip("\n").split("\n")
        text = "\n".join(line[2:] if line.startswith("# ") else "" if line == "#" else line for line in lines)
        found.append(("markdown", text) if markdown else ("code", "\n".join(lines)))
    return found


def run_text(source: Path, text: str) -> None:
    namespace: dict[str, Any] = {"__name__": "tutorial"}
    exec(compile(text, str(source), "exec"), namespace)


@pytest.fixture
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")


@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("in_a_folder")
@pytest.mark.parametrize(
    "source", [pytest.param(s, marks=[pytest.mark.slow] * (s.stem in SLOW)) for s in SOURCES], ids=lambda s: s.stem
)
def test_a_tutorial_runs(source: Path) -> None:
    text = source.read_text(encoding="utf-8")
    for number, small in SMALLER.get(source.stem, {}).items():
        assert number in text
        text = text.replace(number, small)
    run_text(source, text)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("in_a_folder")
@pytest.mark.parametrize("source", [s for s in SOURCES if s.stem in SMALLER], ids=lambda s: s.stem)
def test_a_tutorial_runs_as_it_is(source: Path) -> None:
    run_text(source, source.read_text(encoding="utf-8"))


@pytest.mark.parametrize("source", SOURCES, ids=lambda s: s.stem)
def test_a_notebook_is_its_source_with_outputs(source: Path) -> None:
    notebook = json.loads(source.with_suffix(".ipynb").read_text(encoding="utf-8"))
    held = [(cell["cell_type"], "".join(cell["source"])) for cell in notebook["cells"]]
    assert held == cells(source), "run python docs/tutorials/make.py"
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", [])]
    assert outputs
    assert [output for output in outputs if output["output_type"] == "error"] == []
    assert len(json.dumps(notebook)) < 1_500_000


def test_most_tutorials_show_pictures() -> None:
    texts = [source.with_suffix(".ipynb").read_text(encoding="utf-8") for source in SOURCES]
    assert len(texts) == 8
    assert sum("image/png" in text for text in texts) >= 5
