"""Every command of docs/steering-tutorial.md runs on tiny pipelines saved to disk; test_snippets.py runs its Python."""

import csv
import json
import random
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from cliplens.cli import app
from support import tiny_pipelines as tiny
from support.tiny_language_models import seeing

pytest.importorskip("diffusers", reason="steering pipelines needs the extra [diffusion]")
PAGE = Path(__file__).parents[3] / "docs" / "steering-tutorial.md"
COLOURS = {"red": (220, 30, 30), "blue": (30, 60, 220), "green": (30, 160, 60)}
SMALL = {
    "run": ["--d-sae", "64", "--k", "4", "--samples", "6000", "--batch-size", "256", "--namer", "captions"],
    "find": [],
    "steer": ["--dose", "0,1,2"],
}
DRAWING = ["--steps", "2", "--size", "32x32"]


def section(title: str) -> list[list[str]]:
    """Return the commands of a section of the page."""
    text = PAGE.read_text(encoding="utf-8").split(f"\n## {title}\n")[1].split("\n## ")[0]
    lines = [line for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    return [shlex.split(line)[1:] for line in lines]


def write_pairs(place: Path, count: int = 200) -> None:
    """Write captions and pictures in which a colour is said and seen."""
    rng = random.Random(0)
    captions = [f"{rng.choice(['a', 'the'])} {rng.choice([*COLOURS])} {rng.choice('xyz')}" for _ in range(count)]
    for n, caption in enumerate(captions):
        Image.new("RGB", (32, 32), COLOURS[caption.split()[1]]).save(place / f"{n}.png")
    Image.new("RGB", (32, 32), COLOURS["red"]).save(place / "ring.png")
    for name, rows in (
        ("captions", [[c] for c in captions]),
        ("pictures", [[f"{n}.png", c] for n, c in enumerate(captions)]),
    ):
        with (place / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([["caption"] if name == "captions" else ["image", "caption"], *rows])


def answering(place: Path) -> None:
    """Write a LLaVA with 24 tiny layers in its tower, and its processor."""
    seeing(place, layers=24)


MADE: dict[str, tuple[str, Callable[[Path], Any], int]] = {
    "Stable Diffusion 1.5": ("sd15", lambda p: tiny.stable_diffusion().save_pretrained(p), 12),
    "Stable Diffusion XL": ("sdxl", lambda p: tiny.stable_diffusion_xl().save_pretrained(p), 12),
    "StableUnCLIP": ("unclip", lambda p: tiny.stable_unclip_img2img().save_pretrained(p), 3),
    "LLaVA": ("llava", answering, 24),
}
"""Section -> the folder it names, what writes it, and the layers of its encoders."""


@pytest.mark.parametrize(
    "title", [next(iter(MADE)), *(pytest.param(t, marks=pytest.mark.slow) for t in list(MADE)[1:])]
)
def test_three_commands(title: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, write, layers = MADE[title]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tiny, "LAYERS", layers)
    # A random text tower says no colour more clearly than chance does. The commands are tested here, not the evidence.
    monkeypatch.setattr("cliplens.run.find.reached_by_chance", lambda *_, **__: 0.0)
    monkeypatch.setattr("cliplens.run.find.GOOD", 0.05)
    write(tmp_path / folder)
    write_pairs(tmp_path)
    said = {}
    commands = section(title)
    assert [command[0] for command in commands] == ["run", "find", "steer"]
    for command in commands:
        more = SMALL[command[0]] + (DRAWING if command[0] == "steer" and folder != "llava" else [])
        done = CliRunner().invoke(app, [*command, *more])
        assert done.exit_code == 0, f"{command}: {done.output} {done.exception!r}"
        said[command[0]] = done.output
    assert "yes" in said["find"], "a latent is a good candidate for red"
    rows = json.loads((tmp_path / f"{folder}-steered" / "steering.json").read_text())["measured"]
    assert rows[0]["conditioning moved"] == 0
    assert rows[-1]["conditioning moved"] > 0
    assert rows[-1]["changed" if folder == "llava" else "picture moved"] > 0
