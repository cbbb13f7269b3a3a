"""A sweep: dictionaries on one harvest equal those of runs alone, resume, share the work, and are whole or absent."""

import json
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from cliplens import run as runs
from cliplens.cli import app
from cliplens.cli.options import several
from cliplens.errors import DamagedError, InputError, MismatchError, UnknownNameError
from cliplens.files import read_json
from cliplens.records import PairedActs
from cliplens.run import Settings, SweepFolder, dry_sweep, fixes, sweep, verify, verify_sweep
from cliplens.run.grid import GRID, check_grid, expand
from cliplens.run.memory import Kept, Memory
from cliplens.runfolder import RunFolder
from cliplens.sae import Dictionary
from cliplens.store import Provider

pytestmark = pytest.mark.timeout(600)  # a fixture trains four dictionaries, which takes minutes on a busy machine
SMALL: dict[str, Any] = {"pairs": "world:192", "d_sae": 32, "samples": 1024, "batch_size": 128}
SETTINGS = Settings(**SMALL)
KS = {"k": [2, 4], "seed": [0, 1]}
NAMES = [f"hook_embedding-batchtopk-d32-k{k}-s{s}" for k in (2, 4) for s in (0, 1)]


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> SweepFolder:
    return sweep(SETTINGS, KS, tmp_path_factory.mktemp("swept") / "sweep")


def weights(folder: RunFolder) -> dict[str, torch.Tensor]:
    return dict(Dictionary.load(folder.sae).sae.state_dict())


def test_one_run_folder_per_dictionary(swept: SweepFolder) -> None:
    assert swept.names == NAMES
    assert [f.path.name for f in swept.runs] == NAMES
    for folder in swept.runs:
        assert folder.activations.resolve() == (swept.path / "activations").resolve()
        assert folder.summary.exists()
    assert not list(swept.path.glob("*/activations/*.arrow"))


def test_every_dictionary_is_that_of_a_run_alone(swept: SweepFolder, tmp_path: Path) -> None:
    alone = runs.run(replace(SETTINGS, k=4, seed=1), tmp_path / "alone", until="name")
    for name, value in weights(alone).items():
        assert torch.equal(value, weights(swept.run(NAMES[3]))[name])
    here, there = (read_json(f.summary) for f in (alone, swept.run(NAMES[3])))
    for summary in (here, there):
        del summary["seconds"]
    assert here == there


def test_a_run_of_a_sweep_is_a_run(swept: SweepFolder) -> None:
    folder = swept.run(NAMES[0])
    assert not [one for one in verify(folder) if one.problem]
    opened = runs.OpenedRun(RunFolder.open(folder.path))
    assert len(opened.table) == 32
    assert len(opened.scored_acts(20)) >= 20
    with suppress(UnknownNameError):  # so short a training on so few pairs may find no more than chance does
        assert opened.find("red")
    page = CliRunner().invoke(app, ["report", str(folder.path)])
    assert page.exit_code == 0, page.output
    assert folder.report.exists()
    again = runs.dry_run(opened.asked, folder.path, resume=True, until="name")
    assert all(state.done for state in again.states)


def test_resuming_reuses_what_is_done_and_adds_new_values(swept: SweepFolder, tmp_path: Path) -> None:
    plan = dry_sweep(SETTINGS, {"k": [2, 4], "seed": [0, 1, 2]}, swept.path, resume=True)
    done = {name: all(state.done for state in run.states) for name, run in plan.runs.items()}
    assert done == {name: name in NAMES for name in plan.runs}
    assert plan.harvest_bytes == 0
    before = {name: swept.run(name).summary.stat().st_mtime_ns for name in NAMES}
    sweep(SETTINGS, KS, swept.path, resume=True)
    assert {name: swept.run(name).summary.stat().st_mtime_ns for name in NAMES} == before


def test_a_lost_dictionary_is_made_again(swept: SweepFolder) -> None:
    lost = swept.run(NAMES[1])
    before = weights(lost)
    (lost.sae / "sae_weights.safetensors").unlink()
    checked = verify_sweep(swept)
    bad = [one.name for one in checked if one.problem]
    assert f"{NAMES[1]}/sae/sae_weights.safetensors" in bad
    (fix,) = fixes(RunFolder(swept.path), checked)
    assert fix == swept.command()
    assert "--k 2,4" in fix
    assert "--seed 0,1" in fix
    found = CliRunner().invoke(app, ["verify", str(swept.path)])
    assert found.exit_code == 1
    sweep(SETTINGS, KS, swept.path, resume=True)
    assert all(torch.equal(value, weights(lost)[name]) for name, value in before.items())
    assert CliRunner().invoke(app, ["verify", str(swept.path)]).exit_code == 0


def test_other_pairs_and_hooks_are_refused(swept: SweepFolder) -> None:
    with pytest.raises(MismatchError, match="pairs"):
        sweep(replace(SETTINGS, pairs="world:128"), KS, swept.path, resume=True)
    with pytest.raises(MismatchError, match="hook_projected"):
        sweep(SETTINGS, {"hook": ["hook_projected"]}, swept.path, resume=True)
    with pytest.raises(InputError, match="no sweep yet"):
        sweep(SETTINGS, KS, swept.path)
    with pytest.raises(InputError, match="score"):
        sweep(replace(SETTINGS, sae="x"), KS, swept.path, resume=True)
    run = swept.run(NAMES[0])
    before = run.toml.read_bytes()
    with pytest.raises(MismatchError, match="hook_projected"):
        runs.run(replace(SETTINGS, k=2, hook="hook_projected"), run.path, resume=True, redo=True, until="train")
    assert run.toml.read_bytes() == before


def test_altered_shared_activations_are_refused_by_a_run(swept: SweepFolder) -> None:
    shard = next((swept.path / "activations").glob("vision*/data*.arrow"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    try:
        with pytest.raises(DamagedError, match="cliplens sweep"):
            runs.run(replace(SETTINGS, k=2), swept.run(NAMES[0]).path, resume=True, until="name")
    finally:
        shard.write_bytes(whole)


def test_several_hooks_share_one_harvest(tmp_path: Path) -> None:
    grid = {"hook": ["hook_embedding", "vision.blocks.0.hook_resid_post"]}
    made = sweep(replace(SETTINGS, k=2), grid, tmp_path / "hooks", until="train")
    sites = read_json(made.path / "activations" / "manifest.json")["sites"]
    assert [s["site"] for s in sites] == ["vision.hook_embedding", "text.hook_embedding", grid["hook"][1]]
    assert [len(Dictionary.load(f.sae).provenance.sites) for f in made.runs] == [2, 1]  # type: ignore[union-attr]


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="other files"):
        sweep(SETTINGS, KS, tmp_path)


def test_one_failed_dictionary_leaves_the_others(
    swept: SweepFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = sys.modules["cliplens.run.sweep"]
    real = module.run_on_shared
    seen = []

    def failing(checked: Any, folder: RunFolder, *rest: Any, **options: Any) -> None:
        seen.append(folder.path.name)
        if folder.path.name == NAMES[0]:
            raise MismatchError(expected="a", found="b", fix="c")
        real(checked, folder, *rest, **options)

    monkeypatch.setattr(module, "run_on_shared", failing)
    with pytest.raises(MismatchError):
        sweep(SETTINGS, KS, swept.path, resume=True)
    assert seen == NAMES
    assert f"{NAMES[0]} failed" in capsys.readouterr().err


def test_the_grid_drops_what_an_architecture_does_not_use() -> None:
    settings = replace(SETTINGS, d_sae=None)
    grid = {"architecture": ["topk", "standard"], "k": [4, 8], "sparsity": [1.0]}
    names = [cell.name for cell in expand(settings, grid, {"hook_embedding": 64})]
    assert names == [
        "hook_embedding-topk-d256-k4-s0",
        "hook_embedding-topk-d256-k8-s0",
        "hook_embedding-standard-d256-l1-s0",
    ]
    assert [note.split()[0] for note in check_grid(settings, grid)] == ["--k", "--sparsity"]
    with pytest.raises(InputError, match="different values"):
        check_grid(settings, {"k": [4, 4]})


def test_values_with_commas() -> None:
    assert several("d_sae", "64, 128") == [64, 128]
    assert several("sparsity", "0.5") == [0.5]
    for text in ("4,,8", "four"):
        with pytest.raises(InputError, match="--k"):
            several("k", text)
    from cliplens.cli.sweep import VARY

    assert VARY == GRID


def test_the_command_plans_and_reports(swept: SweepFolder) -> None:
    options = [f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items()]
    asked = ["sweep", *options, "--k", "2,4", "--seed", "0,1", "--out", str(swept.path), "--resume"]
    planned = CliRunner().invoke(app, [*asked, "--dry-run"])
    assert planned.exit_code == 0, planned.output
    assert planned.output.count("reuse") == 5
    assert "Nothing was written" in planned.output
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    assert "cliplens compare" in done.output.replace("\n", " ")


def test_a_reseeded_provider_gives_the_batches_of_a_new_one() -> None:
    acts = PairedActs(tuple(map(str, range(50))), torch.randn(50, 3), torch.randn(50, 3))
    for paired in (False, True):
        first = Provider.from_acts(acts, batch_size=8, seed=0, paired=paired)
        again, new = first.reseeded(5), Provider.from_acts(acts, batch_size=8, seed=5, paired=paired)
        assert all(torch.equal(next(again), next(new)) for _ in range(40))
        assert again.state_dict() == new.state_dict()
        back = first.reseeded(5)
        back.load_state_dict(new.state_dict())
        assert torch.equal(next(back), next(new))
    next(first)


class _Item:
    def __init__(self, value: int) -> None:
        self.value, self.bytes = value, 10


def test_a_short_pass_is_kept_and_a_long_one_read_again() -> None:
    reads = []

    def read() -> Any:
        reads.append(1)
        return iter([_Item(n) for n in range(3)])

    for most, times in ((30, 1), (29, 2)):
        reads.clear()
        kept = Memory().once("x", lambda most=most: Kept(read, most))  # type: ignore[misc]
        assert [item.value for item in kept] == [item.value for item in kept] == [0, 1, 2]
        assert len(reads) == times


@pytest.mark.slow
def test_processes_share_the_work(swept: SweepFolder, tmp_path: Path) -> None:
    out = tmp_path / "shared"
    options = [f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items()]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    asked = ["-m", "cliplens", "sweep", *options, "--k", "2,4", "--seed", "0,1", "--out", str(out)]
    done = subprocess.run([*command, *asked], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = SweepFolder.open(out)
    for name in NAMES:
        theirs = weights(swept.run(name))
        assert all(torch.equal(value, theirs[key]) for key, value in weights(found.run(name)).items())


def test_sweep_toml_that_is_damaged_is_named(tmp_path: Path) -> None:
    (tmp_path / "sweep.toml").write_text("format = 'other'\n")
    with pytest.raises(DamagedError, match=r"sweep\.toml"):
        SweepFolder.open(tmp_path).command()
    with pytest.raises(InputError, match=r"sweep\.toml"):
        SweepFolder.open(tmp_path / "none")


def test_json_of_the_runs_names_the_grid(swept: SweepFolder) -> None:
    asked = swept.run(NAMES[2]).read_settings()["asked"]
    assert (asked["k"], asked["seed"], asked["d_sae"]) == (4, 0, 32)
    assert json.loads((swept.run(NAMES[2]).path / "steps.json").read_text())["records"]["harvest"]["outputs"]
    assert np.isfinite(read_json(swept.run(NAMES[2]).summary)["explained_variance"])
