"""The study on planted embeddings, its record on a run, and the command."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import cliplens
from cliplens.errors import InputError
from cliplens.run import OpenedRun
from cliplens.studies import ScoredClasses, read_studies
from cliplens_plugins.contribution import Problem, contribution, matching_problem, mm_shap, zero_shot_problem
from cliplens_plugins.contribution.command import app
from cliplens_plugins.contribution.run_tasks import task_of_user
from cliplens_plugins.contribution.study import removal_verdicts
from support.study_runs import study_run
from support.tiny import tiny_images, tiny_model, tiny_tokens
from support.tiny_dictionaries import tiny_dictionary


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> OpenedRun:
    return study_run(tmp_path_factory.mktemp("contribution"))


def classes() -> ScoredClasses:
    names = np.array(["ImgD", "TextD", "CrossD", "dead"])[np.arange(48) % 4]
    return ScoredClasses(names, np.where(names == "dead", 0.0, 0.1 + np.arange(48) % 5 / 10))


def test_values_sum_to_the_whole_in_every_task_and_tower() -> None:
    clip = cliplens.wrap(tiny_model())
    dictionary = tiny_dictionary(32, sites=("vision.hook_embedding", "text.hook_embedding"))
    images, tokens = tiny_images(10), tiny_tokens(10)
    problems = [
        matching_problem(clip, images, tokens, more={"mean cosine": lambda a, b: float((a * b).sum(1).mean())}),
        zero_shot_problem(images, torch.arange(10) % 3, tiny_tokens(6, seed=4), classes=3, reference_tokens=tokens),
    ]
    found = contribution(clip, dictionary, classes(), problems, controls=3)
    assert len(found.totals) == 5 * 3
    for total in found.totals:
        assert total["sum of Shapley values"] == pytest.approx(total["all"] - total["none"], abs=1e-10)
    alone = [r for r in found.shapley if r["task"] == "mean cosine"]
    assert all(np.isnan(r["low"]) for r in alone)  # one number in all has no interval over items
    assert {r["player"] for r in found.shapley} == {"ImgD", "TextD", "CrossD", "dead", "error term"}


@pytest.mark.parametrize("planted", ["ImgD", "TextD", "CrossD"])
def test_a_class_that_carries_everything_is_found(planted: str) -> None:
    """A task that reads one planted direction: the class whose latents write it gets all of it."""
    clip = cliplens.wrap(tiny_model())
    dictionary = tiny_dictionary(32, sites=("vision.hook_embedding", "text.hook_embedding"))
    scored = classes()
    of = np.flatnonzero(scored.classes == planted)
    basis = torch.linalg.qr(torch.randn(32, 32, generator=torch.Generator().manual_seed(3)))[0].T
    rows = dictionary.sae.W_dec
    rows[:] = torch.nn.functional.normalize(rows - (rows @ basis[:1].T) * basis[:1], dim=1)
    rows[of] = basis[0]
    dictionary.sae.W_enc[:] = 0
    dictionary.sae.W_enc[:, of[0]] = basis[0]
    dictionary.sae.b_enc.fill_(0.0)
    dictionary.sae.b_enc[of[0]] = 2.0  # fires on every sample, by how far it lies along the direction
    images = tiny_images(12)
    task = {"along": lambda image, text: -((image @ basis[0].double()) - clean).square()}
    with torch.no_grad():
        clean = torch.nn.functional.normalize(clip.encode_image(images).double(), dim=1) @ basis[0].double()
    found = contribution(clip, dictionary, scored, [Problem(images, tiny_tokens(12), task)], controls=2)
    value = {r["player"]: r["value"] for r in found.shapley if r["towers"] == "image"}
    assert value[planted] > 0.9 * sum(value.values()) > 0
    drop = {r["player"]: r["drop"] for r in found.removal if r["towers"] == "image"}
    assert drop[planted] == max(drop.values())
    verdict = next(r for r in removal_verdicts(found) if r["towers"] == "image")
    assert verdict["removing CrossD hurts"] == ("most" if planted == "CrossD" else "neither most nor least for sure")


def test_mm_shap_of_a_model_that_ignores_a_side_is_at_the_end() -> None:
    clip = cliplens.wrap(tiny_model())
    tokens = tiny_tokens(3, seed=2)
    share = mm_shap(clip, tiny_images(3), tokens, side=2, permutations=2).text
    assert ((share > 0) & (share < 1)).all()
    same = mm_shap(clip, torch.zeros(3, 3, 32, 32), tokens, side=2, permutations=2).text
    assert np.allclose(same, 1.0)  # a picture without content has nothing to hide
    with pytest.raises(InputError, match="Fix: pass a side"):
        mm_shap(clip, tiny_images(1), tokens[:1], side=5)


@pytest.mark.slow
def test_the_command_writes_a_record_and_a_section_of_the_report(run: OpenedRun, tmp_path: Path) -> None:
    options = ["--pairs", "12", "--controls", "2", "--resamples", "1", "--labels", "fill"]
    done = CliRunner().invoke(app, [str(run.folder.path), *options])
    assert done.exit_code == 0, done.output
    study = read_studies(run.folder)[0]
    assert study.name == "contribution"
    assert any("error term" in finding for finding in study.findings)
    assert len(study.tables) == 8
    assert json.loads((run.folder.studies / "contribution.json").read_text())["data"]["untrained"]
    page = run.folder.report.read_text()
    assert 'id="study-contribution"' in page
    assert "Shapley value of each class" in page


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--labels", "colr"], "colour"),
        (["--labels", "light"], "factor of captions"),
        (["--labelled", "/nowhere"], "no folder /nowhere"),
        (["--function", "nowhere:task"], "pass a function that Python can import"),
        (["--function", "math"], "pass a function that Python can import"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_words(run: OpenedRun, options: list[str], says: str) -> None:
    usual = ["--controls", "0", "--resamples", "0", "--pairs", "8"]
    done = CliRunner().invoke(app, [str(run.folder.path), *usual, *options])
    assert says in str(done.exception)
    assert isinstance(done.exception, InputError)


@pytest.mark.parametrize("function", ["nowhere:task", "math", "math:nothing", "", ":task"])
def test_a_function_that_cannot_be_imported_is_refused(function: str) -> None:
    with pytest.raises(InputError, match="pass a function that Python can import"):
        task_of_user(function)
    assert list(task_of_user("math:sqrt")) == ["sqrt"]
    assert task_of_user(None) == {}
