"""`cliplens steer` on a real pipeline from a folder, through the command line."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from cliplens.errors import InputError
from cliplens_plugins.steering.command import app
from support import tiny_pipelines as tiny
from support import tiny_variants as variants
from support.tiny_dictionaries import tiny_dictionary

pytest.importorskip("diffusers", reason="steering pipelines needs the extra [diffusion]")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("steer")
    pipeline = tiny.stable_diffusion()
    pipeline.save_pretrained(path / "pipeline")
    tiny_dictionary(tiny.WIDTH, 64, sites=("text.blocks.1.hook_resid_post",)).save(path / "sae")
    return path


DRAWN = ["--pipeline", "PIPELINE", "--sae", "SAE", "--edit", "3=+6", "--prompt", "a"]


def steer(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments))


def test_a_strip_over_doses_and_what_was_done(folder: Path, tmp_path: Path) -> None:
    pipeline, sae = str(folder / "pipeline"), str(folder / "sae")
    edits = ["--edit", "3=+6", "--edit", "1,2=off"]
    where = ["--pipeline", pipeline, "--sae", sae, "--steps", "2", "--prompt", "a red ring", "--prompt", "a disc"]
    done = steer(*where, *edits, "--dose", "1,2", "--window", "0:0.9", "--out", str(tmp_path / "out"))
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "out" / "steering.json").read_text())
    assert found["doses"] == [0.0, 1.0, 2.0], "dose 0 is always there to compare with"
    assert found["samples"] == ["a red ring", "a disc"]
    assert [row["dose"] for row in found["measured"]] == [0.0, 1.0, 2.0]
    assert found["edits"][0]["latents"] == [3]
    assert "--control" in found["verdict"], "how to get a control"
    with Image.open(tmp_path / "out" / "strip.png") as strip:
        assert strip.width > 3 * 96
        assert strip.height > 2 * 96
    again = steer(*where, "--edits", str(tmp_path / "out" / "edits.json"), "--out", str(tmp_path / "again"))
    assert again.exit_code == 0, again.output
    assert json.loads((tmp_path / "again" / "steering.json").read_text())["edits"] == found["edits"]


def test_edits_side_by_side_with_a_random_one_and_seeds(folder: Path, tmp_path: Path) -> None:
    """The other options on the way: negative prompt, guidance, scheduler, several seeds."""
    pipeline, sae = str(folder / "pipeline"), str(folder / "sae")
    options = ["--negative", "a disc", "--guidance", "3", "--scheduler", "euler", "--seeds", "0,5", "--size", "32x32"]
    edits = ["--edit", "3=+6", "--compare", "4=+6", "--control", "--dose", "0,1"]
    where = ["--pipeline", pipeline, "--sae", sae, "--steps", "2", "--prompt", "a red ring", "--out", str(tmp_path)]
    done = steer(*where, *edits, *options)
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "steering.json").read_text())
    assert found["samples"] == ["a red ring, seed 0", "a red ring, seed 5"]
    assert [other["edit"] for other in found["compared"]] == ["4=+6", "a random edit"]
    moved = [rows[1]["activations moved"] for rows in (found["measured"], found["compared"][1]["measured"])]
    assert moved[0] == pytest.approx(moved[1], rel=1e-3), "the control moves as far"
    assert found["verdict"].startswith("'picture moved' changes by +")
    assert f"Control {found['verdict']}" in done.output
    assert found["measured"][1]["conditioning moved"] > 0
    assert "picture moved 95 %" in found["measured"][1]
    page = (tmp_path / "steering.html").read_text()
    assert page.count("data:image/png") == 2 * 2 * 3, "two seeds at two doses under three edits"
    assert all(name in done.output and name in page for name in ("4=+6", "a random edit"))


def test_a_picture_a_mask_and_a_strength(folder: Path, tmp_path: Path) -> None:
    tiny.stable_diffusion("StableDiffusionInpaintPipeline").save_pretrained(tmp_path / "inpaint")
    tiny.tiny_image().save(tmp_path / "x.png")
    where = ["--pipeline", str(tmp_path / "inpaint"), "--sae", str(folder / "sae"), "--prompt", "a red ring"]
    picture = str(tmp_path / "x.png")
    given = ["--image", picture, "--mask", picture, "--strength", "0.5", "--size", "32x32"]
    done = steer(*where, *given, "--edit", "3=+6", "--steps", "4", "--dose", "1", "--out", str(tmp_path / "out"))
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "out" / "steering.json").read_text())["measured"][1]["picture moved"] > 0


def test_the_reference_picture_of_an_ip_adapter_is_steered(folder: Path, tmp_path: Path) -> None:
    adapter = variants.save_ip_adapter(tmp_path)
    tiny_dictionary(tiny.EMBED, 64, sites=("vision.hook_embedding",)).save(tmp_path / "sae")
    tiny.tiny_image().save(tmp_path / "x.png")
    where = ["--pipeline", str(folder / "pipeline"), "--sae", str(tmp_path / "sae"), "--prompt", "a red ring"]
    given = ["--ip-adapter", str(adapter), "--ip-image", str(tmp_path / "x.png"), "--size", "32x32"]
    done = steer(*where, *given, "--edit", "3=+6", "--steps", "1", "--dose", "1", "--out", str(tmp_path / "out"))
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "out" / "steering.json").read_text())["measured"][1]["conditioning moved"] > 0


def test_edits_at_some_positions(folder: Path, tmp_path: Path) -> None:
    pipeline, sae = str(folder / "pipeline"), str(folder / "sae")
    where = ["--pipeline", pipeline, "--sae", sae, "--steps", "1", "--prompt", "a red ring", "--edit", "3=+6"]
    moved = {}
    for positions in ("all", "content", "eot"):
        done = steer(*where, "--positions", positions, "--dose", "1", "--out", str(tmp_path / positions))
        assert done.exit_code == 0, done.output
        found = json.loads((tmp_path / positions / "steering.json").read_text())
        moved[positions] = found["measured"][1]["activations moved"]
    assert moved["all"] > moved["content"] > moved["eot"] > 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            [*DRAWN, "--positions", "eos"],
            "content",
        ),
        (
            [*DRAWN, "--seeds", "1.5"],
            "--seeds 0,1,2",
        ),
        (
            [*DRAWN, "--strength", "0.5"],
            "--strength",
        ),
        ([*DRAWN, "--strength", "2"], "at most 1"),
        (["--pipeline", "PIPELINE", "--sae", "SAE", "--edit", "3=+6", "--ip-image", "x.png"], "no file x.png"),
        (
            [*DRAWN, "--compare", "x="],
            "an edit such",
        ),
        ([*DRAWN, "--measure", "a blue ring"], "--judge, to compare pictures with the phrase"),
        ([*DRAWN, "--judge", "open_clip:ViT-B-32"], "--measure with a phrase"),
        ([*DRAWN, "--compare", "red"], "latents given by number"),
        ([*DRAWN, "--classes", "cat,dog"], "CLIP itself to steer, since --classes is given, but found --pipeline"),
        ([*DRAWN, "--out", "SAE/cfg.json/x"], "a place that can be written at"),
        (["--edit", "3=+6"], "a run folder, or --pipeline together with --sae"),
        (["--pipeline", "PIPELINE", "--sae", "SAE"], "neither --edit nor --edits"),
        (["--pipeline", "PIPELINE", "--sae", "SAE", "--edit", "3=+6"], "neither --prompt nor --image"),
        (["--pipeline", "SAE", "--sae", "SAE", "--edit", "3=+6", "--prompt", "a"], "model_index.json"),
        (["--pipeline", "PIPELINE", "--sae", "SAE", "--edit", "red=+6", "--prompt", "a"], "latents given by number"),
        (["--pipeline", "PIPELINE", "--sae", "SAE", "--edit", "3=+6", "--dose", "one"], "numbers with ','"),
        (["--pipeline", "PIPELINE", "--sae", "SAE", "--edit", "3=+6", "--window", "1"], "a window FROM:TO"),
    ],
)
def test_what_does_not_go_together_is_refused_in_words(
    folder: Path, arguments: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    named = {"PIPELINE": str(folder / "pipeline"), "SAE": str(folder / "sae")}
    refused = steer(*(named.get(a, a.replace("SAE/", f"{folder / 'sae'}/")) for a in arguments))
    assert isinstance(refused.exception, InputError)
    assert words in str(refused.exception)
    assert not [*tmp_path.iterdir()], "a refusal leaves no folder behind"
