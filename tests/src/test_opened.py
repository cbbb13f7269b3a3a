"""A finished run opened again, and what can be asked of it: causal ablation and fidelity from the command line."""

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from cliplens import keys
from cliplens.errors import InputError
from cliplens.files import read_json
from cliplens.run import OpenedRun, Settings, run
from cliplens.runfolder import RunFolder
from cliplens.world import world_pairs
from cliplens_plugins.fidelity.command import app as fidelity_app
from cliplens_plugins.modality.command import app as causal_app
from cliplens_plugins.modality.command import causal_rows

SMALL = {"pairs": "world:600", "d_sae": 40, "k": 4, "samples": 8192, "batch_size": 256}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return run(Settings(**SMALL), tmp_path_factory.mktemp("runs") / "run", until="name")


def test_inputs_are_pairs_kept_from_training_drawn_by_id(finished: RunFolder) -> None:
    opened = OpenedRun(finished)
    images, tokens = opened.inputs(20)
    assert len(images) == len(tokens) == 20
    more, _ = opened.inputs(10_000)
    assert (more[:20] == images).all()
    assert len(more) == keys.held_out(keys.pair_keys(world_pairs(600).ids), 0.2).sum()


def test_causal_effects_of_a_run(finished: RunFolder) -> None:
    found = CliRunner().invoke(causal_app, [str(finished.path), "--pairs", "24", "--random", "2", "--latents", "1,5,7"])
    assert found.exit_code == 0, found.output
    rows = read_json(finished.path / "causal.json")["latents"]
    assert [row["latent"] for row in rows] == [1, 5, 7]
    assert all(row["causal"] is None or 0 <= row["causal"] <= 1 for row in rows)
    assert len(causal_rows(OpenedRun(finished), None, 16, 0)) == 16
    refused = CliRunner().invoke(causal_app, [str(finished.path), "--latents", "1;2"])
    assert isinstance(refused.exception, InputError)
    assert "separate the numbers with commas" in str(refused.exception)


def test_fidelity_of_a_run_against_itself(finished: RunFolder) -> None:
    asked = [str(finished.path), "--pairs", "40", "--against", str(finished.path)]
    found = CliRunner().invoke(fidelity_app, asked)
    assert found.exit_code == 0, found.output
    tables = read_json(finished.path / "fidelity.json")
    figures = {row["figure"]: row for row in tables["Downstream, 40 pairs"]}
    loss = figures["contrastive_loss"]
    assert loss["model"] < loss["dictionary"] < loss["zero ablation"]
    assert loss["zero ablation"] == pytest.approx(np.log(40), abs=1e-6)
    again = {row["class"]: row for row in tables[f"Found again in {finished.path}"]}
    assert again["all"]["found_again"] == 1.0
    assert {"Same top images", "Top captions contained"} < set(tables)


def test_a_run_without_scores_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text("[asked]\npairs = 'world:10'\n")
    with pytest.raises(InputError, match="Expected a run that was scored"):
        _ = OpenedRun(RunFolder.open(tmp_path)).table


def test_a_run_opens_from_its_path(finished: RunFolder, tmp_path: Path) -> None:
    def opened(path: object) -> OpenedRun:
        made = object.__new__(OpenedRun)  # around the check of types that the tests switch on
        object.__setattr__(made, "folder", path)
        made.__post_init__()
        return made

    assert opened(str(finished.path)).folder == opened(finished).folder == finished
    with pytest.raises(InputError, match=r"Expected a run folder, which contains run\.toml"):
        opened(tmp_path)
