"""Write results of other commands into a run folder: check its files first, hold its lock, and record the results."""

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cliplens.files import check_room, remove_leftovers, remove_leftovers_of
from cliplens.run.lock import locked
from cliplens.run.remedies import check_whole
from cliplens.run.steps import TRAIN, Record, StepLog, outputs_of, versions
from cliplens.runfolder import RunFolder


@contextmanager
def results(folder: RunFolder, name: str, *paths: Path, room: int = 0) -> Iterator[None]:
    """Check what the block reads, hold the lock of the run folder while it writes, and record what it wrote.

    The record, in `steps.json`, holds the command that was entered and the hashes of `paths`, so that `cliplens verify`
    covers them. Paths outside the run folder are not recorded; where all are outside, no lock is taken.

    Args:
        folder: the run.
        name: name of the command, such as `fidelity`.
        paths: the files and folders that the block writes.
        room: approximate number of bytes that the block writes.

    Raises:
        DamagedError: scores or names were altered since they were written.
        MachineError: another process works in the run folder, or the disk has no room.
    """
    check_whole(folder)
    for path in paths:
        check_room(path, room)
        remove_leftovers_of(path)
    inside = {_name_in(folder, path): path for path in paths if _is_inside(folder, path)}
    if not inside:
        yield
        return
    with locked(folder.path):
        remove_leftovers(folder.path)
        yield
        log = StepLog(folder)
        if log.legacy:  # a folder of an earlier version has no records; one alone would hide that
            return
        there = {(f"{at}/" if path.is_dir() else at): path for at, path in inside.items() if path.exists()}
        log.keep(name, Record({"command": entered(folder, name)}, results_inputs(log), outputs_of(there), versions()))
        log.save()


def results_inputs(log: StepLog) -> dict[str, str]:
    """Return the hash of the dictionary that results are made of; empty where it is not the run's own."""
    return {"dictionary": log.records[TRAIN.name].fingerprint} if TRAIN.name in log.records else {}


def entered(folder: RunFolder, name: str) -> str:
    """Return the command line of this process, with RUN for the run folder; the bare command where it is another."""
    words = sys.argv[1:]
    if words[: len(name.split())] != name.split():
        words = [*name.split(), str(folder.path)]
    own = folder.path.resolve()
    return shlex.join(["cliplens", *("RUN" if Path(word).resolve() == own else word for word in words)])


def _is_inside(folder: RunFolder, path: Path) -> bool:
    return path.resolve().is_relative_to(folder.path.resolve())


def _name_in(folder: RunFolder, path: Path) -> str:
    return path.resolve().relative_to(folder.path.resolve()).as_posix() if _is_inside(folder, path) else str(path)
