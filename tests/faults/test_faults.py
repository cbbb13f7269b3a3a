"""The short form of the fault trials; `python benchmarks/reliability.py` tries many more and prints the figures."""

import errno
import json
import re
import shutil
import sys
import tomllib
from pathlib import Path

import pytest

from cliplens.errors import DamagedError, InternalError, MachineError
from cliplens.faults import in_words
from cliplens.run import OpenedRun, verify
from cliplens.run.lock import locked
from cliplens.runfolder import RunFolder
from faults import trials
from faults.commands import EXPORTS, JOBS, RESULTS, RUN, Place, Trial
from faults.fuzzer import fuzz
from faults.readers import readers
from faults.support import cliplens

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks, limits and audit hooks of Linux")
SLOW = pytest.mark.slow
NAMED = next(trial for trial in JOBS if trial.finished)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("faults").resolve())


@pytest.fixture
def copied(place: Place, tmp_path: Path) -> RunFolder:
    return RunFolder(Path(shutil.copytree(place.finished / "run", tmp_path / "run")))


@pytest.mark.parametrize(
    "number", [60, pytest.param(2, marks=SLOW), pytest.param(24, marks=SLOW), pytest.param(130, marks=SLOW)]
)
def test_a_killed_run_resumes_to_the_same_files(place: Place, number: int) -> None:
    assert trials.kill(place, RUN, number) == trials.SAME


@pytest.mark.parametrize(
    "trial",
    [NAMED, *(pytest.param(trial, marks=SLOW) for trial in (RESULTS[0], *EXPORTS))],
    ids=lambda trial: trial.name,
)
def test_a_killed_command_is_entered_again_with_the_same_files(place: Place, trial: Trial) -> None:
    changes = place.whole(trial)[1]
    assert trials.kill(place, trial, 2 * len(changes) // 3) == trials.SAME


def test_a_kill_beside_a_finished_dictionary_leaves_no_checkpoints(place: Place) -> None:
    trial = next(trial for trial in JOBS if trial.name == "train")
    removals = [n for n, change in enumerate(place.whole(trial)[1]) if re.match(r"os\.remove .*/training-", change)]
    assert trials.kill(place, trial, removals[-1]) == trials.SAME


@SLOW
def test_lost_power_loses_nothing_that_was_whole(place: Place) -> None:
    assert trials.kill(place, RUN, 80, power=True) == trials.SAME


@SLOW
def test_a_run_that_is_asked_to_end_says_so_and_goes_on(place: Place) -> None:
    assert trials.stop(place, RUN, 40) == trials.SAME


@pytest.mark.parametrize("limit", [20_000, pytest.param(0, marks=SLOW)])
def test_a_full_disk_is_said_in_words(place: Place, limit: int) -> None:
    assert trials.full_disk(place, RUN, limit) == f"in words, then {trials.SAME}"


@SLOW
def test_an_error_at_a_change_of_a_file_is_said_in_words(place: Place) -> None:
    assert trials.refuse(place, RUN, 50, errno.EROFS) == f"in words, then {trials.SAME}"


@pytest.mark.parametrize(
    "second",
    [RESULTS[1], pytest.param(RUN, marks=SLOW), pytest.param(RESULTS[-1], marks=SLOW)],
    ids=lambda trial: trial.name,
)
def test_two_commands_at_once(place: Place, second: Trial) -> None:
    assert trials.two_at_once(place, RESULTS[-1], 8, second) == "refused in words"


def test_verify_finds_every_damaged_file(place: Place) -> None:
    run = place.finished / "run"
    files = [path for path in trials.files_of(run) if path.suffix != ".webp"]
    kinds = trials.KINDS
    found = {trials.found_by_verify(run, path, kinds[n % len(kinds)], n) for n, path in enumerate(files)}
    assert found <= {"found", "no change"}
    assert not any(one.problem for one in verify(RunFolder(run)))


@pytest.mark.parametrize(
    "name", ["fidelity.json", *(pytest.param(n, marks=SLOW) for n in ("run.toml", "steps.json", "sae/cfg.json"))]
)
def test_the_command_that_verify_prints_mends(place: Place, name: str) -> None:
    assert trials.mended(place, place.finished / "run" / name, "cut", 0) == "mended"


@SLOW
def test_a_lost_thumbnail_and_a_lost_record_are_made_again(place: Place) -> None:
    thumbnail = next((place.finished / "run" / "exemplars" / "images").iterdir())
    assert trials.mended(place, thumbnail, "flip", 3) == "mended"


@pytest.mark.parametrize(
    "name",
    [
        "latents.parquet",
        *(pytest.param(n, marks=SLOW) for n in ("scores/findings.json", "exemplars/exemplars.parquet")),
    ],
)
def test_results_are_not_made_of_damaged_files(copied: RunFolder, name: str) -> None:
    path = copied.path / name
    trials.damage(path, "flip", 5)
    for command in (("report",), ("fidelity",), ("export", "table", "--out", copied.path.parent / "t.csv")):
        words = command[:1] if command[0] != "export" else command[:2]
        ended = cliplens(*words, copied.path, *command[len(words) :])
        assert ended.code == 2, ended.said
        assert f"{name} as it was written, but found that it is altered" in ended.said
        assert "cliplens run" in ended.said
    if name == "latents.parquet":
        with pytest.raises(DamagedError, match="altered"):
            _ = OpenedRun(copied).table


def test_another_namer_redoes_names_and_report_alone(place: Place) -> None:
    before, _ = place.whole(RUN)
    after, changes = place.whole(NAMED)
    named = {"run/latents.parquet", "run/findings.json", "run/summary.json", "run/run.toml", "run/steps.json"}
    assert {name for name in before if before[name] != after[name]} == named
    assert not any("scores" in change or "exemplars" in change or "/sae" in change for change in changes)


@SLOW
def test_results_of_an_earlier_dictionary_are_named(place: Place) -> None:
    place.start(trial := next(t for t in JOBS if t.name == "run --k"))
    assert cliplens(*trial.arguments(place)).code == 0
    stale = {one.name for one in verify(RunFolder(place.run)) if one.problem}
    assert {"fidelity.json", "causal.json", "steering/steering.json"} <= stale
    assert "latents.parquet" not in stale


def test_mutated_files_are_read_or_refused(place: Place) -> None:
    ended = fuzz(readers(place), place.path / "inputs", 120, seed=0)
    assert [f"{name}: {how}" for name, counts in ended.items() for how in counts if how.startswith("raw")] == []


@pytest.mark.parametrize("code", sorted(errno.errorcode))
def test_every_error_of_the_operating_system_has_words(code: int) -> None:
    said = in_words(OSError(code, "what the system says", "some/file"))
    assert not isinstance(said, InternalError)
    assert str(said).startswith("Expected ")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("No CUDA GPUs are available"),
        RuntimeError("DataLoader worker (pid 12) exited unexpectedly with exit code 1"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
        json.JSONDecodeError("Expecting value", "x", 0),
        tomllib.TOMLDecodeError("Invalid value"),
        ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
    ],
)
def test_faults_of_the_machine_have_words(error: Exception) -> None:
    assert not isinstance(in_words(error), InternalError)


def test_torch_and_torchvision_of_two_builds_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    cause = RuntimeError("operator torchvision::nms does not exist")
    far = ImportError("Could not import module 'BertForPreTraining'.")
    far.__cause__ = cause
    said = str(in_words(far))
    assert "Expected torch and torchvision of one build" in said
    assert "torchvision::nms" in said
    assert "pip install --force-reinstall torch torchvision" in said
    assert isinstance(in_words(ImportError("No module named 'nothing'")), InternalError)
    monkeypatch.setitem(sys.modules, "torchvision", None)
    assert "Expected torch and torchvision of one build" in str(in_words(ImportError("no")))


def test_what_nobody_foresaw_names_the_place_and_the_way_on() -> None:
    said = in_words(KeyError("x"))
    assert isinstance(said, InternalError)
    assert "--debug" in said.fix


def test_a_cause_in_words_wins() -> None:
    wrapped = RuntimeError("wrapped")
    wrapped.__cause__ = OSError(errno.ENOSPC, "No space left on device", "a/b")
    assert "room on the disk" in str(in_words(wrapped))


def test_a_folder_in_use_is_refused_with_host_and_process(tmp_path: Path) -> None:
    with (
        locked(tmp_path / "run"),
        pytest.raises(MachineError, match=r"process \d+ on .+ since"),
        locked(tmp_path / "run"),
    ):
        pass
    assert not (tmp_path / "run").exists()


def test_lost_records_of_steps_are_named(place: Place) -> None:
    run = place.path / "records-lost"
    shutil.copytree(place.path / "finished" / "run", run)
    (run / "steps.json").unlink()
    assert [one.problem for one in verify(RunFolder(run)) if one.name == "steps.json"] == ["missing"]
