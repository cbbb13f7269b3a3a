"""A finished run in which another number of latents fires than was asked for warns, with cause and fix."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from cliplens.cli import app
from cliplens.run import run
from cliplens.run.sparsity import sparsity_warning
from cliplens.sae import Dictionary
from cliplens.settings import Settings
from support.tiny_dictionaries import tiny_dictionary

pytestmark = pytest.mark.timeout(600)  # a fixture trains and scores, which takes minutes on a busy machine


def settings(**options: object) -> Settings:
    return Settings(**{"pairs": "world:60", "model": "world", "d_sae": 48, "k": 4, "device": "cpu", **options})


def dictionary(l0: float | None = 4.0, **options: object) -> Dictionary:
    made = tiny_dictionary(64, 48, **options)
    if l0 is not None:
        about = {"rows": 9, "threshold": 0.1, "l0": l0, "running_threshold": 0.0, "running_l0": 9.0}
        made.sae.cfg.metadata["threshold_calibration"] = about
    return made


@pytest.mark.parametrize("l0", [2.67, 4.0, 6.0])
def test_within_a_factor_of_one_and_a_half_nothing_is_said(l0: float) -> None:
    assert sparsity_warning(l0, dictionary(), settings()) is None


def test_the_number_and_the_ratio_are_said() -> None:
    assert sparsity_warning(8.2, dictionary(), settings()).startswith(
        "Warning: 8.2 latents fire per scored sample, 2 times the 4 asked for. On the rows it was trained on"
    )
    assert "1 latents fire per scored sample, only 25% of the 4 asked" in sparsity_warning(
        1.0, dictionary(), settings()
    )


def test_the_default_k_counts_where_none_was_given() -> None:
    assert sparsity_warning(6.0, dictionary(), settings(k=None, d_sae=128)) is None
    assert "the 8 asked for" in sparsity_warning(13.0, dictionary(), settings(k=None, d_sae=256))


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        ({"architecture": "jumprelu"}, "Train longer (--samples), or raise --sparsity"),
        ({"architecture": "topk"}, "smaller --k"),
        ({"architecture": "matryoshka_batchtopk"}, "Use more pairs"),
    ],
)
def test_the_cause_is_that_of_the_architecture(options: dict[str, str], cause: str) -> None:
    assert cause in sparsity_warning(9.0, dictionary(), settings(**options))


def test_a_penalty_that_is_too_strong_is_to_be_lowered() -> None:
    assert "lower --sparsity" in sparsity_warning(1.0, dictionary(), settings(architecture="jumprelu"))


def test_of_an_architecture_without_such_a_number_nothing_is_said() -> None:
    assert sparsity_warning(40.0, dictionary(), settings(architecture="standard", k=None)) is None


def test_a_dictionary_of_an_earlier_version_has_another_cause() -> None:
    assert "running mean of an earlier version" in sparsity_warning(9.0, dictionary(l0=None), settings())


def test_a_given_dictionary_is_compared_with_its_own_training() -> None:
    given = settings(sae="sae/", d_sae=None, k=None)
    assert "these pairs differ from those it was trained on" in sparsity_warning(9.0, dictionary(4.0), given)
    assert sparsity_warning(9.0, dictionary(7.0), given) is None
    assert "the 6 asked for" in sparsity_warning(2.0, dictionary(None, architecture="topk"), given)
    assert sparsity_warning(9.0, dictionary(None), given) is None


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of few steps, whose threshold is then lowered, as if it lagged behind."""
    out = tmp_path_factory.mktemp("short") / "run"
    asked = settings(pairs="world:120", batch_size=64, samples=64 * 12, held_out=0.5)
    made = run(asked, out, until="train")
    trained = Dictionary.load(made.sae)
    with torch.no_grad():
        trained.sae.threshold.mul_(0.3)
    sae = trained.save(out.parent / "sae")
    run(Settings(pairs="world:120", model="world", sae=str(sae), device="cpu"), out.parent / "scored")
    return out.parent


def test_a_short_run_fires_k_latents_and_says_how_its_threshold_was_set(short: Path) -> None:
    run(settings(pairs="world:120", batch_size=64, samples=64 * 12, held_out=0.5), short / "run", resume=True)
    summary = json.loads((short / "run" / "summary.json").read_text())
    assert summary["threshold"]["l0"] == pytest.approx(4, rel=0.005)
    assert summary["threshold"]["running_l0"] > 4
    assert 4 / 1.5 < summary["l0"] < 4 * 1.5
    assert not any("asked for" in w for w in summary.get("warnings", []))


def test_the_warning_stands_in_summary_report_and_terminal(short: Path) -> None:
    (warning,) = (w for w in json.loads((short / "scored" / "summary.json").read_text())["warnings"] if "asked" in w)
    assert warning in (short / "scored" / "report.html").read_text()
    options = ["--pairs", "world:120", "--model", "world", "--sae", str(short / "sae"), "--device", "cpu"]
    told = CliRunner().invoke(app, ["score", *options, "--resume", "--out", str(short / "scored")])
    assert warning in told.output
