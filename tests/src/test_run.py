"""The main job, end to end, on the embedded world: every file is there and says the same as its neighbours."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from cliplens.errors import InputError, MismatchError
from cliplens.records import LatentTable
from cliplens.run import Settings, dry_run, run
from cliplens.run.steps import StepLog
from cliplens.runfolder import RunFolder
from cliplens_plugins.probing.command import app as probe_app

SMALL = {"pairs": "world:1500", "d_sae": 96, "k": 6, "samples": 40_960, "batch_size": 512}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return run(Settings(**SMALL), tmp_path_factory.mktemp("runs") / "run")


def test_every_file_of_the_run_folder_is_there(finished: RunFolder) -> None:
    for path in (
        finished.toml,
        finished.activations,
        finished.sae / "cfg.json",
        finished.sae / "image" / "cfg.json",
        finished.sae / "text" / "cfg.json",
        finished.quarantine,
        finished.latents,
        finished.exemplars / "exemplars.parquet",
        finished.findings,
        finished.summary,
        finished.report,
    ):
        assert path.exists(), path


def test_the_summary_holds_what_scripts_look_for(finished: RunFolder) -> None:
    summary = json.loads(finished.summary.read_text())
    expected = (
        "pairs quarantined d_in d_sae alive l0 explained_variance explained_variance_image explained_variance_text"
    )
    for name in [*expected.split(), "ImgD", "TextD", "CrossD", "ImgD_paper", "TextD_paper", "CrossD_paper"]:
        assert isinstance(summary[name], int | float), name
    assert summary["pairs"] == 1500
    assert set(summary["seconds"]) >= {"load", "harvest", "train", "score", "name"}
    assert summary["versions"]["sae-lens"]


def test_every_metric_works_in_a_run_and_the_default_question_is_retrieval(finished: RunFolder) -> None:
    findings, summary = json.loads(finished.findings.read_text()), json.loads(finished.summary.read_text())
    assert findings["failed"] == []
    assert 0 < summary["targets"]["retrieved"] < 1
    assert summary["modality_gap"]["as they are"]["centroid"] > 0
    table = LatentTable.load(finished.latents)
    assert {"pid_synergy", "pid_shuffled", "bridge", "embsim_cross", "mms"} < set(table)
    assert np.isfinite(table["pid_redundancy"][table["alive"].astype(bool)]).all()


def test_table_and_summary_agree(finished: RunFolder) -> None:
    table, summary = LatentTable.load(finished.latents), json.loads(finished.summary.read_text())
    assert len(table) == summary["d_sae"] == 96
    assert int(table["alive"].sum()) == summary["alive"]
    for name in ("ImgD", "TextD", "CrossD"):
        assert int((table["modality"] == name).sum()) == summary[name]
    assert set(table) >= {
        "latent",
        "fire_image",
        "fire_text",
        "mds",
        "cofiring",
        "energy",
        "ms_image",
        "name",
        "name_score",
    }
    living = table["mds"][table["alive"]]
    assert np.nanmin(living) >= 0
    assert np.nanmax(living) <= 1


def test_stock_saelens_gives_our_codes_on_raw_activations(finished: RunFolder) -> None:
    from sae_lens import SAE

    from cliplens.records import PairedActs
    from cliplens.sae import Dictionary

    rows = torch.randn(32, 64) * 0.1
    acts = PairedActs(tuple(str(i) for i in range(32)), rows, rows)
    codes = Dictionary.load(finished.sae).encode(acts)
    for modality in ("image", "text"):
        stock = SAE.load_from_disk(finished.sae / modality)
        ours = codes.of(modality)
        assert ours is not None
        torch.testing.assert_close(stock.encode(rows), ours.dense(), atol=1e-6, rtol=1e-5)


def test_a_folder_with_a_run_is_refused_without_resume(finished: RunFolder) -> None:
    with pytest.raises(InputError, match=r"found a run\.toml\. Fix: add --resume"):
        run(Settings(**SMALL), finished.path)


def test_resume_with_another_option_redoes_the_steps_that_read_it(
    finished: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = RunFolder(Path(shutil.copytree(finished.path, tmp_path / "run")))
    shards = {p: p.stat().st_mtime_ns for p in folder.activations.rglob("*.arrow")}
    run(Settings(**{**SMALL, "k": 7}), folder.path, resume=True, until="train")
    assert "train: changed: --k 7 (was 6)" in capsys.readouterr().err
    assert json.loads((folder.sae / "cfg.json").read_text())["metadata"]
    assert {p: p.stat().st_mtime_ns for p in folder.activations.rglob("*.arrow")} == shards
    states = {s.step.name: s.reason for s in dry_run(Settings(**{**SMALL, "k": 7}), folder.path, resume=True).states}
    assert states == {"harvest": "done", "train": "done", "score": "inputs", "name": "inputs", "report": "inputs"}


def test_hours_of_work_are_replaced_only_when_asked(finished: RunFolder, tmp_path: Path) -> None:
    folder = RunFolder(Path(shutil.copytree(finished.path, tmp_path / "run")))
    log = StepLog(folder)
    log.seconds["train"] = 7200
    log.save()
    with pytest.raises(MismatchError, match=r"in 120 minutes, but found changed: --k 7 \(was 6\)"):
        run(Settings(**{**SMALL, "k": 7}), folder.path, resume=True)
    assert dry_run(Settings(**{**SMALL, "k": 7}), folder.path, resume=True, redo=True).states[1].reason == "options"


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(InputError, match="found other files in it"):
        run(Settings(**SMALL), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_resume_redoes_what_is_missing_and_gives_the_same_table(finished: RunFolder) -> None:
    before = LatentTable.load(finished.latents)
    finished.latents.unlink()
    finished.summary.unlink()
    run(Settings(**SMALL), finished.path, resume=True)
    after = LatentTable.load(finished.latents)
    for name in before:
        np.testing.assert_array_equal(before[name], after[name])


def test_a_dictionary_made_elsewhere_is_scored_alone(finished: RunFolder, tmp_path: Path) -> None:
    """Every pair counts, nothing is trained, and the numbers are those of the same pairs."""
    scored = run(Settings(pairs="world:300:5", sae=str(finished.sae)), tmp_path / "scored")
    summary = json.loads(scored.summary.read_text())
    assert summary["pairs"] == 300
    assert summary["d_sae"] == 96
    assert not scored.sae.exists()


def test_a_dictionary_of_another_model_is_refused(finished: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(MismatchError, match="world-plain"):
        run(Settings(pairs="world:100", model="world-plain", sae=str(finished.sae)), tmp_path / "scored")


def test_one_tower_alone(tmp_path: Path) -> None:
    settings = Settings(
        pairs="world:400", hook="vision.blocks.1.hook_resid_post", d_sae=64, k=4, samples=4096, batch_size=256
    )
    summary = json.loads(run(settings, tmp_path / "run").summary.read_text())
    assert summary["sites"] == ["vision.blocks.1.hook_resid_post"]
    assert summary["explained_variance_image"] is not None
    assert "ImgD" not in summary


@pytest.mark.slow
def test_two_processes_give_the_table_of_one(finished: RunFolder, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "cliplens", "score"]
    command += ["--pairs", "world:1500", "--sae", str(finished.sae), "--out", str(tmp_path / "two")]
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    one = run(Settings(pairs="world:1500", sae=str(finished.sae)), tmp_path / "one")
    alone, together = LatentTable.load(one.latents), LatentTable.load(tmp_path / "two" / "latents.parquet")
    assert list(alone) == list(together)
    for name in alone:
        if alone[name].dtype.kind == "f":
            np.testing.assert_allclose(alone[name], together[name], atol=1e-9)
        else:
            np.testing.assert_array_equal(alone[name], together[name])


def children(process: int) -> list[int]:
    return [int(c) for c in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds the processes of torchrun as Linux lists them")
def test_torchrun_starts_a_dead_process_again_and_the_cache_is_the_same(tmp_path: Path) -> None:
    options = ["-m", "cliplens", "harvest", "--pairs", "world:8192", "--threads", "1", "--out"]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["--max-restarts", "1", *options, str(tmp_path / "two")]
    with (tmp_path / "said").open("w") as said, subprocess.Popen(command, stderr=said) as running:
        while not list((tmp_path / "two" / "activations" / "shards").glob("*.json")):
            time.sleep(0.02)
        os.kill(children(running.pid)[-1], signal.SIGKILL)
        assert running.wait() == 0
    assert "exitcode: -9" in (tmp_path / "said").read_text()
    subprocess.run([sys.executable, *options, str(tmp_path / "one")], check=True)
    one, two = (
        {p.relative_to(folder): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
        for folder in (tmp_path / "one" / "activations", tmp_path / "two" / "activations")
    )
    assert one == two


def test_probes_of_a_run_are_fitted_on_other_pictures_than_they_are_scored_on(finished: RunFolder) -> None:
    said = CliRunner().invoke(
        probe_app, [str(finished.path), "--label", "shape=circle", "--k", "1,4", "--pairs", "250"]
    )
    assert said.exit_code == 0, said.output
    found = json.loads((finished.path / "probing.json").read_text())
    probes = found["Probes of shape=circle"]
    assert [(row["data"], row["columns"], row["k"]) for row in probes] == [
        (modality, columns, k)
        for modality in ("image", "text")
        for columns, k in (("latents", 1), ("latents", 4), ("activations", 64))
    ]
    assert all(0 <= row["auroc"] <= 1 and row["low"] <= row["auroc"] <= row["high"] for row in probes)
    assert max(row["auroc"] for row in probes if row["columns"] == "activations") > 0.9
    assert {row["data"] for row in found["Absorption"]} == {"image", "text"}
    assert all(row["cknna"] > row["by_chance"] for row in found["CKNNA of activations and codes"])
    refused = CliRunner().invoke(probe_app, [str(finished.path), "--label", "shape=circle", "--k", "one"])
    assert "--k as whole numbers separated by commas" in str(refused.exception)
