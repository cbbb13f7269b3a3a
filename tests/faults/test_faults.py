"""The short form of the fault trials; `python -m tests.faults.long` tries many more and prints the figures."""

import errno
import json
import shutil
import sys
import tomllib
from pathlib import Path

import pytest

from cliplens.errors import InternalError, MachineError
from cliplens.faults import in_words
from cliplens.run import Settings, run, verify
from cliplens.run.lock import locked
from cliplens.runfolder import RunFolder
from faults.support import cliplens, content
from faults.trials import KINDS, damage, files_of, fuzz, kill_and_resume, machine_faults, outcome, run_command, sample

SMALL = {"pairs": "world:120", "d_sae": 32, "k": 4, "samples": 2048, "batch_size": 128}
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks, limits and audit hooks of Linux")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return run(Settings(**SMALL), tmp_path_factory.mktemp("faults") / "run")


@pytest.mark.parametrize("number", [2, 24, 60])
def test_a_killed_run_resumes_to_the_same_files(finished: RunFolder, tmp_path: Path, number: int) -> None:
    command = run_command("world:120", tmp_path / "run")
    assert kill_and_resume(command, tmp_path / "run", number, content(finished.path)) in ("same files", "not killed")


def test_verify_finds_every_damaged_file(finished: RunFolder, tmp_path: Path) -> None:
    folder = RunFolder(Path(shutil.copytree(finished.path, tmp_path / "run")))
    missed = []
    for number, path in enumerate(sample(files_of(folder.path), 20, seed=1)):
        kind, before = KINDS[number % len(KINDS)], path.read_bytes()
        if damage(path, kind, number):
            name = path.relative_to(folder.path).as_posix()
            if not any(one.problem for one in verify(folder)):
                missed.append(f"{name}, {kind}")
        path.write_bytes(before)
    assert missed == []
    assert not any(one.problem for one in verify(folder))


def test_what_was_lost_or_damaged_is_made_again(finished: RunFolder, tmp_path: Path) -> None:
    folder = RunFolder(Path(shutil.copytree(finished.path, tmp_path / "run")))
    folder.latents.unlink()
    damage(folder.activations / "manifest.json", "cut", 0)
    damage(next(folder.activations.rglob("data-*.arrow")), "flip", 0)
    damage(folder.toml, "zeros", 0)
    run(Settings(**SMALL), folder.path, resume=True)
    assert content(folder.path) == content(finished.path)


@pytest.mark.parametrize("limit", [0, 5])
def test_a_full_disk_is_said_in_words(tmp_path: Path, limit: int) -> None:
    faults = list(machine_faults(tmp_path).items())
    ended = cliplens(*run_command("world:120", tmp_path / "run"), setup=faults[limit][1])
    assert outcome(ended) in ("in words", "well"), ended.said


def test_mutated_files_are_read_or_refused(finished: RunFolder, tmp_path: Path) -> None:
    ended = fuzz(finished.path, tmp_path, 160, seed=0)
    assert [name for name in ended if name.startswith("raw")] == []


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
