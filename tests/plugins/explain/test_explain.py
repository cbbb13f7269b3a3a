"""`cliplens explain` writes a picture, prints its control, and refuses in words."""

from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

import cliplens
from cliplens.cli import app
from cliplens.errors import InputError, UnknownNameError
from cliplens.pictures import open_picture
from cliplens.run import Settings, run
from cliplens_plugins.explain import explain_latent
from support.tiny_dictionaries import tiny_dictionary


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    cliplens.read_pairs("world:4")[1].image.resize((96, 64)).save(tmp_path / "one.png")
    return tmp_path / "one.png"


@pytest.mark.parametrize("method", ["relevance", "attention", "rollout"])
def test_a_picture_is_written_with_its_control(picture: Path, method: str) -> None:
    out = picture.with_name("made") / "why.png"
    options = ["--method", method, "--first-block", "-1", "--out", str(out), "--device", "cpu", "--seed", "1"]
    done = CliRunner().invoke(app, ["explain", "world", str(picture), "a red ring", *options])
    assert done.exit_code == 0, done.exception
    assert "Greying the" in done.output
    assert f"words by {method}" in done.output
    assert done.output.count("trained on nothing but pictures and captions that a program makes") == 1
    with Image.open(out) as written:
        assert written.width == 448


@pytest.mark.filterwarnings("ignore")
def test_a_latent_of_a_run_is_drawn(picture: Path, tmp_path: Path) -> None:
    small = {"d_sae": 16, "k": 4, "samples": 64, "batch_size": 32, "device": "cpu", "held_out": 0.4}
    made = run(
        Settings(pairs="world:24", hook="blocks.1.hook_resid_post", **small),
        tmp_path / "run",
        until="train",  # type: ignore[arg-type]
    )
    for options in ([], ["--activation"]):
        out = tmp_path / f"latent{len(options)}.png"
        line = ["explain", str(made.path), str(picture), "a red ring", "--latent", "3", "--out", str(out), *options]
        done = CliRunner().invoke(app, line)
        assert done.exit_code == 0, done.exception
        assert ("activation" if options else "effect on the similarity") in done.output
        with Image.open(out) as written:
            assert written.height > 448


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        (["--latent", "3"], InputError, "a run folder, whose dictionary"),
        (["--out", "why.txt"], InputError, "the ending of a picture"),
        (["--method", "saliency"], UnknownNameError, "method"),
        (["--pretrained", "nothing"], InputError, "nothing"),
    ],
)
def test_wrong_options_are_refused(picture: Path, options: list[str], error: type, told: str) -> None:
    done = CliRunner().invoke(app, ["explain", "world", str(picture), "a ring", *options])
    assert isinstance(done.exception, error)
    assert told in str(done.exception)


def test_an_empty_caption_is_refused_and_a_long_one_is_told(picture: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["explain", "world", str(picture), "  "])
    assert isinstance(done.exception, InputError)
    assert "a caption with words" in str(done.exception)
    long = ["explain", "world", str(picture), "ring " * 100, "--out", str(tmp_path / "why.png")]
    assert "longer than the model's context and was truncated" in CliRunner().invoke(app, long).output


def test_a_file_that_is_no_picture_is_named(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["explain", "world", str(tmp_path / "no.png"), "a ring"])
    assert isinstance(done.exception, InputError)
    assert "no.png, but found missing file" in str(done.exception)


def test_dictionaries_that_cannot_be_mapped_are_refused(picture: Path) -> None:
    clip, image = cliplens.load("world", device="cpu"), open_picture(picture)
    at_end = tiny_dictionary(64, 16, sites=("vision.hook_embedding",))
    with pytest.raises(InputError, match="one activation per patch"):
        explain_latent(clip, at_end, 0, image, "a ring")
    with pytest.raises(InputError, match="a dictionary without sites"):
        explain_latent(clip, cliplens.Dictionary(at_end.sae), 0, image, "a ring")
