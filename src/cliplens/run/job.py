"""Do the steps of the main job in order, as far as its plan requires."""

import json
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from cliplens.distributed import Group, alone, gather_objects
from cliplens.errors import CliplensError
from cliplens.files import check_room, remove_leftovers, write_text
from cliplens.pairs import Pairs
from cliplens.progress import Bar, steps_bar
from cliplens.run.checks import Checked, check
from cliplens.run.context import RunContext, Shared
from cliplens.run.degenerate import check_enough
from cliplens.run.dictionary import train_run
from cliplens.run.harvesting import harvest_run
from cliplens.run.lock import locked
from cliplens.run.plan import RunPlan, inputs_of, plan_run, refuse_finished
from cliplens.run.reports import make_report
from cliplens.run.scoring import account_of, name, score
from cliplens.run.steps import (
    HARVEST,
    NAME,
    RECORDS,
    REPORT,
    SCORE,
    SETTINGS,
    STEPS,
    TRAIN,
    Record,
    Step,
    StepLog,
    StepName,
    outputs_of,
    steps_until,
    versions,
)
from cliplens.runfolder import RunFolder
from cliplens.sae import Dictionary, remove_checkpoints
from cliplens.settings import Settings
from cliplens.store import Cache, Embeddings
from cliplens.store.memory import trim_memory


def run(
    settings: Settings, out: Path | str, *, resume: bool = False, redo: bool = False, until: StepName = "report"
) -> RunFolder:
    """Do the main job in a folder: harvest, train, score, name, report.

    Everything is checked before the first pair is read, and nothing in the folder changes before all checks have
    passed. Under `torchrun` the processes share harvest and scoring; the first one trains, names and writes.

    Args:
        settings: settings of the run.
        out: run folder; created if missing.
        resume: continue the run in `out`. Steps with unchanged options, inputs and files are reused. A changed option
            redoes the steps that depend on it.
        redo: replace results even if that loses hours of work, or if pairs or model have changed.
        until: the last step to do.

    Raises:
        InputError: the folder holds a run and `resume` is false, or a setting cannot be used.
        MismatchError: pairs or model are not those of the run, or hours of work would be replaced, without `redo`.
        MachineError: another process works in the folder, the disk is full, or the device is missing.
    """
    group = Group.current()
    folder = RunFolder(Path(out))
    with locked(folder.path) if group.rank == 0 else nullcontext():
        if group.rank == 0 and not resume:
            refuse_finished(folder)
        started = time.perf_counter()
        checked = check(settings, until)
        log = StepLog(folder, group)
        log.seconds["load"] = round(max(time.perf_counter() - started, log.seconds.get("load", 0.0)), 3)
        if group.rank == 0:
            _begin(plan_run(checked, folder, log, until, resume=resume, redo=redo), log, until, redo=redo)
        group.wait()
        _Job(checked, folder, log, group, resume).do(steps_until(until, checked.settings))
    return folder


def run_on_shared(
    checked: Checked, folder: RunFolder, shared: Shared, *, redo: bool = False, until: StepName = "report"
) -> None:
    """Do the steps of one run of a sweep in this process alone. Steps that are done are reused.

    Args:
        checked: the settings of the run, checked.
        folder: its folder, which shares the activations.
        shared: the activations, opened, and what the runs of the sweep compute once.
        redo: replace results even if that loses hours of work, or if pairs or model have changed.
        until: the last step to do.

    Raises:
        MismatchError: pairs or model are not those of the run, or hours of work would be replaced, without `redo`.
        MachineError: another process works in the folder, or the disk is full.
    """
    with locked(folder.path), alone():
        folder.share_activations(shared.root.activations)
        if shared.root.quarantine.exists():
            write_text(folder.quarantine, shared.root.quarantine.read_text(encoding="utf-8"))
        log = StepLog(folder)
        _begin(plan_run(checked, folder, log, until, resume=True, redo=redo), log, until, redo=redo)
        _Job(checked, folder, log, Group(), True, shared).do(steps_until(until, checked.settings))


def dry_run(
    settings: Settings, out: Path | str, *, resume: bool = False, redo: bool = False, until: StepName = "report"
) -> RunPlan:
    """Check a run and return its plan, without writing anything. Arguments and errors are those of `run`."""
    folder = RunFolder(Path(out))
    if not resume:
        refuse_finished(folder)
    return plan_run(check(settings, until), folder, StepLog(folder), until, resume=resume, redo=redo)


class _Job:
    """Executes the steps, in every process of a group."""

    def __init__(
        self,
        checked: Checked,
        folder: RunFolder,
        log: StepLog,
        group: Group,
        resume: bool,
        shared: Shared | None = None,
    ) -> None:
        self.checked, self.folder, self.log, self.group, self.resume = checked, folder, log, group, resume
        self.shared = shared
        self.memory = None if shared is None else shared.memory

    def do(self, steps: Sequence[Step]) -> None:
        """Do the steps that are not done."""
        names = [step.name for step in steps]
        with steps_bar(self.folder.path.name, names, shown=self.group.rank == 0) as begin:
            self._do(steps, begin)

    def _do(self, steps: Sequence[Step], begin: Callable[[str], None]) -> None:
        begin(HARVEST.name)
        cache = self._harvest()
        if HARVEST is steps[-1]:
            return
        check_enough(cache.keys, self.checked.settings)
        if TRAIN in steps:
            begin(TRAIN.name)
        dictionary = self._train(cache) if TRAIN in steps else self.checked.dictionary
        assert dictionary is not None
        given = self.checked
        context = RunContext(
            given.clip, given.pairs, cache, dictionary,
            given.settings, self.folder, self.group, given.judge, self.memory,
        )  # fmt: skip
        if SCORE in steps and not self._done(SCORE):
            begin(SCORE.name)
            self._check_room(SCORE)
            score(context, self.log)
            self._record(SCORE)
        if self.group.rank != 0:
            return
        if NAME in steps and not self._done_here(NAME):
            begin(NAME.name)
            self._check_room(NAME)
            name(context, self.log)
            self._record(NAME)
        if REPORT in steps and not self._done_here(REPORT):
            begin(REPORT.name)
            self._check_room(REPORT)
            make_report(self.folder, "html")
            self._record(REPORT)

    def _harvest(self) -> Cache:
        done = self._done(HARVEST)
        given = self.checked
        if self.shared is not None:
            if not done:
                self._record(HARVEST)
            return self.shared.cache
        with self.log.timed("harvest"):
            cache = harvest_run(given.clip, given.pairs, given.settings, self.folder, self.group, again=not done)
        if isinstance(given.clip, Embeddings):
            given.clip.release()  # from here on they are read from the cache
        cache = cache.by_picture(given.pairs.image_ids)
        if not done:
            self._record(HARVEST)
            if self.group.rank == 0:
                _say_rows(given.pairs, cache)
        return cache

    def _train(self, cache: Cache) -> Dictionary:
        with self.log.timed("train"), self.group.first_alone():
            if self.group.rank == 0:
                if not self._done_here(TRAIN):
                    self._check_room(TRAIN)
                    train_run(cache, self.checked.settings, self.folder, resume=self.resume, memory=self.memory)
                    self._record(TRAIN)
                remove_checkpoints(self.folder.checkpoints)  # those of a killed process too
                with suppress(OSError):
                    self.folder.checkpoints.rmdir()
            return Dictionary.load(self.folder.sae)

    def _done_here(self, step: Step) -> bool:
        inputs = inputs_of(step, self.checked, self.folder, self.log)
        return self.log.state(step, self.checked.settings, inputs).done

    def _done(self, step: Step) -> bool:
        """Return whether the step is done, as decided by the first process."""
        return gather_objects(self.group.rank == 0 and self._done_here(step))[0]

    def _check_room(self, step: Step) -> None:
        """The disk may have filled up since the plan was made."""
        check_room(self.folder.path, self.checked.bytes.get(step.name, 0))

    def _record(self, step: Step) -> None:
        trim_memory()  # what is freed in small pieces would stay beside the memory of the next step
        if self.group.rank == 0:
            self.log.record(step, self.checked.settings, inputs_of(step, self.checked, self.folder, self.log))


def _begin(plan: RunPlan, log: StepLog, until: StepName, *, redo: bool) -> None:
    """Prepare the folder: remove partial files and the results to redo, and write run.toml."""
    folder = plan.folder
    remove_leftovers(folder.path)
    own = None if folder.shares_activations else folder.activations
    if plan.fresh:
        log.records.clear()
        _remove(own)
    for state in plan.states:
        if not state.done and state.reason != "new" and not plan.fresh:
            _say(f"{state.step.name}: {state.words}")
        if state.step is HARVEST and state.reason in ("options", "inputs"):
            log.records.pop(HARVEST.name, None)
            _remove(own)
        if state.step is SCORE and state.reason == "lost":
            log.records.pop(SCORE.name, None)
        if state.step is TRAIN and (state.reason in ("options", "inputs") or (redo and not state.done)):
            remove_checkpoints(folder.checkpoints)
    if not all(state.done for state in plan.states) or _settings_lost(folder, log):
        _write_settings(folder, log, plan.checked, until)
    elif log.legacy:  # what the records of an earlier version, or damaged ones, would hold is known now
        _record_settings(folder, log, folder.read_settings()["asked"], until)


def _remove(folder: Path | None) -> None:
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


def _settings_lost(folder: RunFolder, log: StepLog) -> bool:
    try:
        folder.read_settings()
    except (OSError, CliplensError):
        return True
    record = log.records.get(SETTINGS)
    return record is not None and any(record.problems(folder.path))


def _write_settings(folder: RunFolder, log: StepLog, checked: Checked, until: StepName) -> None:
    """Write run.toml. Settings of later steps only are kept as in an earlier command."""
    asked = checked.settings.asked()
    if not _settings_lost(folder, log):
        before: dict[str, Any] = folder.read_settings()["asked"]
        now = {name for step in steps_until(until, checked.settings) for name in step.reads}
        later = {name for step in STEPS for name in step.reads} - now
        merged = {n: v for n, v in asked.items() if n not in later} | {n: v for n, v in before.items() if n in later}
        asked = {f.name: merged[f.name] for f in fields(Settings) if f.name in merged}
    folder.write_settings(
        {
            "asked": asked,
            "model": asdict(checked.clip.identity),
            "pairs": {"name": checked.pairs.name, "sha256": checked.pairs.sha256, "count": len(checked.pairs)},
            "versions": versions(),
            RECORDS: StepLog.FILE,
        }
    )
    _record_settings(folder, log, asked, until)


def _record_settings(folder: RunFolder, log: StepLog, asked: dict[str, Any], until: StepName) -> None:
    """Keep what was asked and the hash of run.toml in steps.json."""
    kept = {"asked": json.loads(json.dumps(asked)), "until": _later(until, log)}
    log.keep(SETTINGS, Record(kept, {}, outputs_of({folder.toml.name: folder.toml}), versions()))
    log.save()


def _later(until: StepName, log: StepLog) -> StepName:
    """The last step that this command or an earlier one asked for."""
    before = log.records[SETTINGS].options.get("until") if SETTINGS in log.records else None
    names = [step.name for step in STEPS]
    return max(until, before, key=names.index) if before in names else until


def _say_rows(pairs: Pairs, cache: Cache) -> None:
    """Print how the source was read, and how many of its rows are used."""
    for line in (*pairs.notes, f"{pairs.name}: {account_of(pairs, cache)}"):
        _say(f"pairs: {line}")


def _say(what: str) -> None:
    Bar.write(what, file=sys.stderr)
