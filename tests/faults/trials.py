"""Faults tried on commands: kills, lost power, damaged files, a machine that refuses, clocks, two commands at once."""

import errno
import os
import random
import re
import resource
import shlex
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

from faults.commands import Place, Trial
from faults.support import (
    KILLED,
    Ended,
    Running,
    ask_to_end,
    at_change,
    cliplens,
    content,
    damaged,
    kill_now,
    pause_now,
)

KINDS = ("flip", "cut", "zeros", "empty", "gone", "longer")
ERRORS = (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EIO, errno.EDQUOT)
LIMITS = (0, 1000, 20_000)
"""Sizes in bytes of the largest file that a full disk takes."""
SAME = "same files"


def outcome(ended: Ended) -> str:
    """How a command ended: well, in words, or raw."""
    return "raw" if ended.raw else "well" if ended.code == 0 else "in words"


def kill(place: Place, trial: Trial, number: int, *, power: bool = False) -> str:
    """Kill a command at one change of a file, or cut the power there, go on, and say how that ended."""
    place.whole(trial)
    place.start(trial)
    setup = None
    act: Callable[[str], None] = kill_now
    if power:
        setup, act = _power_cut(place.work)
    killed = cliplens(*trial.arguments(place), watch=at_change(place.work, number, act), setup=setup)
    if killed.code not in KILLED:
        return f"not killed: {outcome(killed)}"
    return gone_on(place, trial)


def kill_after(place: Place, trial: Trial, seconds: float) -> str:
    """Kill a command after some time, go on, and say how that ended."""
    place.whole(trial)
    place.start(trial)
    killed = cliplens(*trial.arguments(place), setup=lambda: _kill_in(seconds))
    if killed.code not in KILLED:
        return "ended before"
    return gone_on(place, trial)


def stop(place: Place, trial: Trial, number: int) -> str:
    """Send SIGTERM to a command at one change of a file; it says so; go on."""
    place.whole(trial)
    place.start(trial)
    stopped = cliplens(*trial.arguments(place), watch=at_change(place.work, number, ask_to_end))
    if stopped.code != 128 + signal.SIGTERM or stopped.raw:
        return f"raw: code {stopped.code}"
    return gone_on(place, trial)


def gone_on(place: Place, trial: Trial, setup: Callable[[], None] | None = None) -> str:
    """Go on after a fault, and compare with the files of an undisturbed command."""
    again = cliplens(*trial.again(place), setup=setup)
    if again.raw:
        return f"raw: {_last_line(again)}"
    if again.code != 0:
        return f"refused: {_last_line(again)}"
    return compared(place, trial)


def compared(place: Place, trial: Trial) -> str:
    """Compare the files with those of an undisturbed command."""
    whole, _ = place.whole(trial)
    found = content(place.work)
    if found != whole:
        differs = sorted(name for name in {*found, *whole} if found.get(name) != whole.get(name))
        return f"other files: {', '.join(differs[:3])}"
    left = place.leftovers()
    return f"leftovers: {', '.join(left[:3])}" if left else SAME


def _last_line(ended: Ended) -> str:
    lines = [line.strip() for line in ended.said.splitlines() if line.strip()]
    return lines[-1][:200] if lines else f"code {ended.code}"


def _kill_in(seconds: float) -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def _power_cut(folder: Path) -> tuple[Callable[[], None], Callable[[str], None]]:
    """What a child does first, and at the cut: what was not forced to disk is lost by half."""
    forced: dict[int, int] = {}
    before: dict[int, int] = {}

    def setup() -> None:
        before.update((s.st_ino, s.st_mtime_ns) for s in map(os.stat, _files(folder)))
        real = os.fsync

        def fsync(descriptor: int) -> None:
            real(descriptor)
            state = os.fstat(descriptor)
            forced[state.st_ino] = state.st_mtime_ns

        os.fsync = fsync

    def cut(_: str) -> None:
        for path in _files(folder):
            state = path.stat()
            if state.st_mtime_ns not in (before.get(state.st_ino), forced.get(state.st_ino)):
                with path.open("r+b") as file:
                    os.ftruncate(file.fileno(), state.st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)

    return setup, cut


def _files(folder: Path) -> list[Path]:
    return [p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".lock")]


# ---------------------------------------------------------------- a machine that refuses


def refuse(place: Place, trial: Trial, number: int, code: int) -> str:
    """Let one change of a file fail with an error of the operating system; then go on."""

    def fail(path: str) -> None:
        raise OSError(code, os.strerror(code), path)

    return _refused(place, trial, watch=at_change(place.work, number, fail))


def refuse_force(place: Place, trial: Trial, number: int, code: int) -> str:
    """Let forcing to disk fail, from the number-th time on; then go on."""

    def setup() -> None:
        real, seen = os.fsync, [0]

        def fsync(descriptor: int) -> None:
            seen[0] += 1
            if seen[0] > number:
                raise OSError(code, os.strerror(code))
            real(descriptor)

        os.fsync = fsync

    return _refused(place, trial, setup=setup)


def full_disk(place: Place, trial: Trial, limit: int) -> str:
    """Let no file grow beyond some bytes; then go on."""

    def setup() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return _refused(place, trial, setup=setup)


def _refused(place: Place, trial: Trial, watch: object = None, setup: object = None) -> str:
    place.whole(trial)
    place.start(trial)
    ended = cliplens(*trial.arguments(place), watch=watch, setup=setup)  # type: ignore[arg-type]
    how = outcome(ended)
    if how == "raw":
        return f"raw: {_last_line(ended)}"
    # A second export into the same folder is refused, so one that ended well is compared as it is.
    exported = ended.code == 0 and trial.name.startswith("export ")
    after = compared(place, trial) if exported else gone_on(place, trial)
    return f"{how}, then {after}" if after == SAME else after


# ---------------------------------------------------------------- clocks, and two at once


def clock_step(place: Place, trial: Trial, number: int, step: float) -> str:
    """Kill a command, set the clock by `step` seconds, give every file a time of that clock, and go on."""
    place.whole(trial)
    place.start(trial)
    cliplens(*trial.arguments(place), watch=at_change(place.work, number, kill_now))
    chance = random.Random(number)
    for path in place.work.rglob("*"):
        os.utime(path, (when := max(0.0, time.time() + step * chance.random()), when), follow_symlinks=False)
    return gone_on(place, trial, setup=lambda: _set_clock(step))


def _set_clock(step: float) -> None:
    real = time.time
    time.time = lambda: max(0.0, real() + step)


def two_at_once(place: Place, first: Trial, number: int, second: Trial) -> str:
    """Enter a command while another one is working in the folder; it is refused in words, and the first ends well."""
    place.whole(first)
    place.start(first)
    running = Running(*first.arguments(place), watch=at_change(place.work, number, pause_now))
    if not running.paused():
        return "raw: not paused"
    beside = cliplens(*second.again(place))
    running.go_on()
    ended = running.end()
    if ended.code != 0:
        return f"raw: the first: {_last_line(ended)}"
    if beside.raw or beside.code == 0:
        return f"raw: the second: {_last_line(beside)}"
    whole, _ = place.whole(first)
    return "refused in words" if content(place.work) == whole else "other files"


# ---------------------------------------------------------------- damaged files


def files_of(run: Path) -> list[Path]:
    """The files of a run."""
    return [p for p in sorted(run.rglob("*")) if p.is_file() and not p.name.startswith(".")]


def damage(path: Path, kind: str, seed: int) -> bool:
    """Damage a file; False where that changes nothing."""
    before = path.read_bytes()
    if kind == "gone":
        path.unlink()
        return True
    after = damaged(before, kind, seed)
    path.write_bytes(after)
    return after != before


def found_by_verify(run: Path, path: Path, kind: str, seed: int) -> str:
    """Damage a file, look whether `verify` names it, and put it back."""
    from cliplens.run import verify
    from cliplens.runfolder import RunFolder

    before, how = path.read_bytes(), "no change"
    if damage(path, kind, seed):
        problems = [one.name for one in verify(RunFolder(run)) if one.problem]
        how = "found" if problems else f"silent: {path.relative_to(run).as_posix()}, {kind}"
    path.write_bytes(before)
    return how


def mended(place: Place, path: Path, kind: str, seed: int) -> str:
    """Damage a file of a finished run, and enter the commands that `verify` prints until it prints none."""
    name = path.relative_to(place.finished)
    place.clear()
    shutil.rmtree(place.work)
    shutil.copytree(place.finished, place.work)
    damage(place.work / name, kind, seed)
    for _ in range(4):
        found = cliplens("verify", place.run)
        if found.code == 0:
            break
        commands = re.findall(r"^(?:Fix: )?(cliplens .*)$", found.said, re.M)
        if found.raw or not commands:
            return f"raw: {name}, {kind}: {_last_line(found)}"
        for command in commands:
            ended = cliplens(*shlex.split(command)[1:])
            if ended.code != 0:
                return f"refused: {name}, {kind}: {_last_line(ended)}"
    else:
        return f"not mended: {name}, {kind}"
    whole, now = content(place.finished), content(place.work)
    wrong = sorted(n for n in {*whole, *now} if whole.get(n) != now.get(n))
    # The report shows how long the steps took, so a report of scores that were made again has other bytes.
    wrong = [n for n in wrong if n != "run/report/index.html" or n not in now]
    if name.name == "steps.json":  # the records of other commands are gone with it; their files are as they were
        wrong = [n for n in wrong if n != name.as_posix()]
    return f"other files: {name}, {kind}: {', '.join(wrong[:3])}" if wrong else "mended"
