"""`cliplens steer` on a real LLaVA from a folder: what it answers, and how far its next token moves."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from cliplens import edits as ed
from cliplens.errors import InputError
from cliplens_plugins.steering.answers import answers, is_answering
from cliplens_plugins.steering.command import app
from support.tiny_dictionaries import tiny_dictionary
from support.tiny_language_models import seeing, spelling

pytest.importorskip("transformers")
SITE = "vision.blocks.0.hook_resid_post"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("answers")
    seeing(path / "llava")
    tiny_dictionary(16, 24, sites=(SITE,)).save(path / "sae")
    rng = np.random.default_rng(0)
    for name in ("one", "two"):
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path / f"{name}.png")
    return path


def rows(place: Path, **edit: Any) -> list[dict[str, Any]]:
    steering = ed.LatentSteering(tiny_dictionary(16, 24, sites=(SITE,)), [ed.add([5], 30.0, **edit)])
    return answers(place / "llava", ["a b"], [place / "one.png", place / "two.png"], steering, (0.0, 1.0, 2.0))


def test_a_dose_moves_the_next_token_and_none_moves_nothing(place: Path) -> None:
    found = rows(place)
    assert [(r["image"], r["dose"]) for r in found] == [(i, d) for i in ("one.png", "two.png") for d in (0.0, 1.0, 2.0)]
    for row in found:
        assert isinstance(row["answer"], str)
        assert len(row["next"].split(", ")) == 5
        assert (row["changed"] == 0.0) == (row["dose"] == 0.0)
    assert rows(place)[2]["changed"] == found[2]["changed"]


def test_from_the_command_line(place: Path, tmp_path: Path) -> None:
    what = ["--pipeline", str(place / "llava"), "--sae", str(place / "sae"), "--edit", "5=+30", "--dose", "1,2"]
    ask = ["--image", str(place / "one.png"), "--prompt", "a b", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, [*what, *ask])
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "out" / "steering.json").read_text())
    assert [row["dose"] for row in found["measured"]] == [0.0, 1.0, 2.0]
    assert found["measured"][2]["changed"] > 0
    assert "nats" in " ".join(found["notes"])
    assert not (tmp_path / "out" / "strip.png").exists()
    assert (tmp_path / "out" / "edits.json").exists()


def test_questions_and_pictures_must_go_together(place: Path) -> None:
    one = ed.LatentSteering(tiny_dictionary(16, 24, sites=(SITE,)), [ed.add([5], 1.0)])
    for questions, images in (([], ["one"]), (["a"], []), (["a", "b"], ["one", "two", "one"])):
        with pytest.raises(InputError, match="as many questions as images, or one of either"):
            answers(place / "llava", questions, [place / f"{n}.png" for n in images], one, (0.0, 1.0))


def test_what_answers_and_what_does_not(place: Path, tmp_path: Path) -> None:
    assert is_answering(place / "llava")
    assert not is_answering(spelling(tmp_path / "llama"))
    assert not is_answering(tmp_path)
