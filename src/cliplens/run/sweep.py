"""Train and score the dictionaries of a grid on one harvest of activations.

SWEEP/sweep.toml     what was asked: settings, grid, names of the runs
SWEEP/activations/   the activations of all hooks, harvested once
SWEEP/NAME/          one run folder per dictionary; its file `activations` points to the shared folder

Each dictionary is claimed by one process, which does its steps alone. So the processes of `torchrun`, or several that
were started apart with `--resume`, share the work, and a process that ends leaves its dictionary to the others.
"""

import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from cliplens.distributed import Group
from cliplens.errors import CliplensError, DamagedError, InputError, MismatchError
from cliplens.files import check_room
from cliplens.progress import Bar
from cliplens.run.checks import Checked, check, check_another, rows_planned
from cliplens.run.context import Shared
from cliplens.run.grid import Cell, Grid, check_grid, expand
from cliplens.run.harvesting import harvest_plan, harvest_run, harvest_sites
from cliplens.run.job import run_on_shared
from cliplens.run.lock import locked
from cliplens.run.memory import Memory
from cliplens.run.plan import RunPlan, plan_run
from cliplens.run.steps import StepLog, StepName
from cliplens.run.sweepfolder import SweepFolder
from cliplens.runfolder import RunFolder
from cliplens.settings import Settings
from cliplens.sites import Site
from cliplens.store.manifest import check_covers, read_plan
from cliplens.store.plan import Plan

_WAIT = 1.0
"""Seconds between two looks at dictionaries that other processes hold."""


@dataclass(frozen=True)
class SweepPlan:
    """Plan of a sweep: the plan of each run, by name, and the bytes of the activations still to harvest."""

    runs: Mapping[str, RunPlan]
    checked: Mapping[str, Checked]
    sites: Sequence[Site]
    harvest_bytes: int
    notes: Sequence[str]


def sweep(
    settings: Settings,
    grid: Grid,
    out: Path | str,
    *,
    resume: bool = False,
    redo: bool = False,
    until: StepName = "name",
) -> SweepFolder:
    """Train, score and name every dictionary of a grid on one harvest.

    Every dictionary is, bit for bit, the one that a run of its own settings trains. Under `torchrun` the processes
    share the harvest, then each claims dictionaries.

    Args:
        settings: the settings of all runs.
        grid: values of the settings to vary (`cliplens.run.grid.GRID`), such as `{"k": [4, 8], "seed": [0, 1]}`.
        out: folder of the sweep; created if missing.
        resume: continue the sweep in `out`: finished dictionaries are reused, new values of the grid are added.
        redo: replace results even if that loses hours of work, or if pairs, model or harvested hooks have changed.
        until: the last step of each run; "report" writes a page for each.

    Raises:
        InputError: `out` holds a sweep and `resume` is false, or a setting cannot be used.
        MismatchError: pairs or model are not those of the sweep, or a hook was not harvested, without `redo`.
        MachineError: another process harvests, the disk is full, or the device is missing.
    """
    group = Group.current()
    folder = SweepFolder(Path(out))
    with locked(folder.path) if group.rank == 0 else nullcontext():
        if group.rank == 0:
            _refuse(folder, resume=resume or redo)
        asked = _checked(settings, grid, until)
        _say_notes(asked, group)
        first = next(iter(asked.checked.values()))
        root = RunFolder(folder.path)
        if group.rank == 0:
            _check_harvest(root, asked, redo=redo)
            folder.write(settings, grid, list(asked.checked), until)
        group.wait()
        cache = harvest_run(
            first.clip, first.pairs, first.settings, root, group, again=group.rank == 0, sites=asked.sites
        )
    shared = Shared(root, cache.by_picture(first.pairs.image_ids), Memory())
    _work(folder, asked.checked, shared, group, redo=redo, until=until)
    group.wait()
    return folder


def dry_sweep(
    settings: Settings,
    grid: Grid,
    out: Path | str,
    *,
    resume: bool = False,
    redo: bool = False,
    until: StepName = "name",
) -> SweepPlan:
    """Check a sweep and return its plan, without writing anything. Arguments and errors are those of `sweep`."""
    folder = SweepFolder(Path(out))
    _refuse(folder, resume=resume or redo)
    asked = _checked(settings, grid, until)
    _check_harvest(RunFolder(folder.path), asked, redo=redo, dry=True)
    runs = {}
    for name, checked in asked.checked.items():
        run = folder.run(name)
        runs[name] = plan_run(checked, run, StepLog(run), until, resume=True, redo=redo)
    found = read_plan(folder.path / "activations")
    whole = found is not None and found[1]
    return SweepPlan(runs, asked.checked, asked.sites, 0 if whole else asked.harvest_bytes, asked.notes)


def _checked(settings: Settings, grid: Grid, until: StepName) -> SweepPlan:
    """Open model and pairs once, and check every dictionary of the grid."""
    if settings.sae is not None:
        raise InputError(
            expected="settings of dictionaries to train", found=f"--sae {settings.sae}", fix="use cliplens score"
        )
    notes = check_grid(settings, grid)
    values = {name: list(grid.get(name, [getattr(settings, name)])) for name in grid}
    start = _with(settings, {name: given[0] for name, given in values.items()})
    first = check(start, until)
    planned: dict[str, Plan] = {start.hook: first.harvest}
    for hook in grid.get("hook", ()):
        if hook not in planned:
            planned[hook] = harvest_plan(first.clip, first.pairs, _with(start, {"hook": hook}))
    at = {hook: _with(start, {"hook": hook}) for hook in planned}
    widths = {hook: _width(plan, at[hook]) for hook, plan in planned.items()}
    rows = {hook: rows_planned(at[hook], plan, len(first.pairs)) for hook, plan in planned.items()}
    cells = expand(settings, grid, widths, rows)
    checked = {cell.name: _of_cell(first, cell, planned, until) for cell in cells}
    sites = tuple(dict.fromkeys(s for cell in cells for s in harvest_sites(cell.settings)))
    held = {s.site: s.schema.bytes_per_pair for plan in planned.values() for s in plan.sites}
    return SweepPlan({}, checked, sites, (sum(held.values()) + 64) * first.harvest.n_pairs, notes)


def _with(settings: Settings, changes: Mapping[str, Any]) -> Settings:
    return Settings(**{**settings.asked(), **changes})


def _width(plan: Plan, settings: Settings) -> int:
    return next(s.schema.d_in for s in plan.sites if s.site in settings.sites)


def _of_cell(first: Checked, cell: Cell, planned: Mapping[str, Plan], until: StepName) -> Checked:
    checked = check_another(first, cell.settings, planned[cell.settings.hook], until)
    return Checked(**{**vars(checked), "bytes": {**checked.bytes, "harvest": 0}})


def _refuse(folder: SweepFolder, *, resume: bool) -> None:
    """Check that a folder is new, or that it holds a sweep that is to be continued."""
    if folder.toml.exists():
        if not resume:
            raise InputError(
                expected=f"{folder.path} to hold no sweep yet",
                found="a sweep.toml",
                fix="add --resume to continue it, or choose another --out",
            )
        return
    others = [p.name for p in folder.path.iterdir() if not p.name.startswith(".")] if folder.path.is_dir() else []
    if set(others) - {"activations", "quarantine.jsonl"}:
        raise InputError(
            expected=f"{folder.path} to be missing, empty, or the folder of a sweep",
            found="other files in it",
            fix="choose another --out",
        )


def _check_harvest(root: RunFolder, asked: SweepPlan, *, redo: bool, dry: bool = False) -> None:
    """Check that a harvest in the folder holds what the sweep reads; with `redo`, remove one that does not."""
    try:
        found = read_plan(root.activations)
    except DamagedError:  # the harvest writes its manifest again
        found = None
    if found is None:
        check_room(root.path, asked.harvest_bytes + sum(sum(c.bytes.values()) for c in asked.checked.values()))
        return
    try:
        for checked in asked.checked.values():
            check_covers(root.activations, found[0], checked.harvest)
    except MismatchError as error:
        if not redo:
            fix = "choose another --out, or add --redo to harvest again and to train all dictionaries again"
            raise MismatchError(expected=error.expected, found=error.found, fix=fix) from error
        if not dry:
            shutil.rmtree(root.activations, ignore_errors=True)


def _work(
    folder: SweepFolder,
    asked: Mapping[str, Checked],
    shared: Shared,
    group: Group,
    *,
    redo: bool,
    until: StepName,
) -> None:
    """Claim dictionaries until all are done. The first process waits for those that others hold."""
    waiting = list(asked)
    failed: dict[str, CliplensError] = {}
    with Bar(total=len(waiting), desc="dictionaries", unit="dictionary", disable=group.rank != 0) as bar:
        while waiting:
            busy = []
            for name in waiting:
                with _claim(folder, name) as mine:
                    if not mine:
                        busy.append(name)
                        continue
                    try:
                        run_on_shared(asked[name], folder.run(name), shared, redo=redo, until=until)
                    except CliplensError as error:
                        failed[name] = error
                bar.update()
            if not busy or group.rank != 0:
                break
            if len(busy) == len(waiting):
                time.sleep(_WAIT)
            waiting = busy
    if failed:
        for name, why in failed.items():
            Bar.write(f"sweep: {name} failed: {why}", file=sys.stderr)
        raise next(iter(failed.values()))


@contextmanager
def _claim(folder: SweepFolder, name: str) -> Iterator[bool]:
    """Hold a dictionary for this process inside the block; yield False if another process holds it."""
    folder.claims.mkdir(exist_ok=True)
    lock = FileLock(folder.claims / name)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _say_notes(asked: SweepPlan, group: Group) -> None:
    if group.rank == 0:
        for note in asked.notes:
            Bar.write(f"sweep: {note}", file=sys.stderr)
