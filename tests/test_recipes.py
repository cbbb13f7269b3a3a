"""The commands of docs/how-to.md run, with the embedded model in place of one that has to be downloaded."""

import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

import cliplens
from cliplens.cli import app
from test_snippets import ROOT, commands

PAGE = ROOT / "docs" / "how-to.md"
HERE = {
    "ViT-B-32": "world",
    " --pretrained laion2b_s34b_b79k": "",
    "cat,dog": "circle,star",
    "cat.png": "photos/star/0.png",
    '"red car"': "red",
}
"""Words of the page and their replacements in this test: the embedded model knows no cats and cars."""
SMALL = " --samples 8192 --batch-size 128 --d-sae 64 --device cpu"
WRITES = {"run": "runs/first/report.html", "steer": "runs/first/steering/strip.png", "explain": "explanation.png"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the page names: a table of pairs, and pictures in folders named after classes."""
    made = tmp_path_factory.mktemp("recipes")
    pairs = cliplens.read_pairs("world:300")
    (made / "pictures").mkdir()
    lines = ["image,caption"]
    for n, pair in enumerate(pairs):
        pair.image.save(made / "pictures" / f"{n}.png")
        lines.append(f'pictures/{n}.png,"{pair.caption}"')
        shape = next((s for s in ("circle", "star") if s in pair.caption.split()), None)
        if shape is not None:
            (made / "photos" / shape).mkdir(parents=True, exist_ok=True)
            pair.image.save(made / "photos" / shape / f"{len(list((made / 'photos' / shape).iterdir()))}.png")
    (made / "captions.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return made


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore")
def test_the_commands_of_the_recipes_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    found = commands(PAGE)
    assert [line.split()[0] for line in found] == ["run", "find", "steer", "zero-shot", "explain", "cite"]
    for line in found:
        said = line
        for text, here in HERE.items():
            said = said.replace(text, here)
        words = shlex.split(said + (SMALL if line.startswith("run ") else ""), comments=True)
        done = CliRunner().invoke(app, words, env={"COLUMNS": "80"})
        assert done.exit_code == 0, (line, done.output, done.exception)
        if (name := line.split()[0]) in WRITES:
            assert (folder / WRITES[name]).exists(), (line, done.output)
