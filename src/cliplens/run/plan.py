"""Decide which steps of a run to do and which to reuse, before anything is written."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from cliplens.errors import CliplensError, InputError, MachineError, MismatchError
from cliplens.faults import size
from cliplens.files import check_room, read_json
from cliplens.run.checks import Checked, model_hash
from cliplens.run.harvesting import check_shared
from cliplens.run.reports import report_inputs
from cliplens.run.scores import TABLE
from cliplens.run.steps import (
    HARVEST,
    LONG,
    NAME,
    REPORT,
    SCORE,
    TRAIN,
    State,
    Step,
    StepLog,
    StepName,
    steps_until,
)
from cliplens.runfolder import RunFolder
from cliplens.settings import Settings

_OUTSIDE = ("pairs", "model", "dictionary")
"""Inputs from outside the folder. Where one changed, the run is another run."""
_OURS = {"run.toml", "steps.json", "activations", "sae", "checkpoints", "quarantine.jsonl", "scores"}


@dataclass(frozen=True)
class RunPlan:
    """The state of each step of a run, and the disk space that it needs."""

    checked: Checked
    states: Sequence[State]
    folder: RunFolder
    fresh: bool
    """Whether nothing was computed in the folder yet."""

    def rows(self) -> Iterator[tuple[str, str, str, str]]:
        """Yield rows to print: the step, what happens, why, and the bytes to write."""
        for state in self.states:
            bytes_ = self.checked.bytes.get(state.step.name, 0)
            will = "reuse" if state.done else "do" if state.reason in ("new", "lost") else "redo"
            yield state.step.name, will, state.words, "" if state.done or not bytes_ else size(bytes_)


def plan_run(
    checked: Checked, folder: RunFolder, log: StepLog, until: StepName, *, resume: bool, redo: bool
) -> RunPlan:
    """Return the plan of a run in a folder.

    Raises:
        InputError: the folder holds a run and `resume` is false, or it holds other files.
        MismatchError: pairs, model or dictionary are not those of the run, or hours of work would be replaced, and
            `redo` is false; or activations that the run shares lack what it reads.
        MachineError: the disk has too little free space.
    """
    fresh = not computed(folder)
    if not resume:
        refuse_finished(folder)
    if not folder.toml.exists() and folder.path.exists():
        _refuse_other_files(folder.path)
    if log.legacy and not fresh:
        _adopt(folder, log)
    _split_names(log)
    states = _states(checked, folder, log, until)
    if not redo:
        _refuse_loss(states, log, folder)
    if folder.shares_activations:
        check_shared(folder, checked.harvest)
    plan = RunPlan(checked, states, folder, fresh)
    _check_room(plan)
    return plan


def refuse_finished(folder: RunFolder) -> None:
    """Check that nothing was computed in the folder.

    Raises:
        InputError: the folder holds a run.
    """
    if computed(folder):
        raise InputError(
            expected=f"{folder.path} to hold no run yet",
            found="a run.toml" if folder.toml.exists() else "files of a run",
            fix="add --resume to continue it, or choose another --out",
        )


def computed(folder: RunFolder) -> bool:
    """Return whether a run folder holds computed results."""
    results = (folder.latents, folder.summary, folder.findings, folder.sae / "cfg.json", folder.scores / TABLE)
    return (
        any(path.exists() for path in results)
        or any(folder.activations.glob("shards/*.json"))
        or any(folder.checkpoints.glob("*.safetensors"))
    )


def inputs_of(step: Step, checked: Checked, folder: RunFolder, log: StepLog) -> dict[str, str]:
    """Return the current hashes of the inputs of a step."""
    outside = checked.inputs
    if step is HARVEST:
        return {name: outside[name] for name in ("pairs", "model")}
    found = {}
    if "harvest" in step.needs:
        found["activations"] = activations_hash(folder)
    if "train" in step.needs and TRAIN.name in log.records and "dictionary" not in outside:
        found["dictionary"] = log.records[TRAIN.name].fingerprint
    read = {SCORE: ("dictionary", "judge"), NAME: ("dictionary", "judge", "vocabulary", "model of the namer")}
    found |= {name: outside[name] for name in read.get(step, ()) if name in outside}
    if step is NAME and SCORE.name in log.records:
        found["scores"] = log.records[SCORE.name].fingerprint
    return found | report_inputs(folder, log) if step is REPORT else found


def activations_hash(folder: RunFolder) -> str:
    """Return the hash of all finished shards of a run; "" if the harvest is not finished."""
    try:
        found = read_json(folder.activations / "manifest.json")
        return str(found["sha256"]) if found["complete"] else ""
    except (OSError, CliplensError, KeyError, TypeError):
        return ""


def _states(checked: Checked, folder: RunFolder, log: StepLog, until: StepName) -> list[State]:
    to_do: list[StepName] = []
    states: list[State] = []
    for step in steps_until(until, checked.settings):
        state = log.state(step, checked.settings, inputs_of(step, checked, folder, log))
        waits = [name for name in step.needs if name in to_do]
        if waits and (state.done or state.reason == "inputs"):
            state = State(step, "inputs", f"again if {' or '.join(waits)} gives other results")
        if not state.done:
            to_do.append(step.name)
        states.append(state)
    scored = log.records.get(SCORE.name)
    if NAME.name in to_do and SCORE.name not in to_do and scored and f"scores/{TABLE}" not in scored.outputs:
        words = f"scores/{TABLE} was not kept by an earlier version"
        states = [State(SCORE, "lost", words) if s.step is SCORE else s for s in states]
    return states


def _refuse_loss(states: Sequence[State], log: StepLog, folder: RunFolder) -> None:
    for state in states:
        own = log.records.get("train") is not None  # the dictionary is this run's: another one follows from its options
        changed = [name for name in state.changed if name in _OUTSIDE and not (name == "dictionary" and own)]
        if changed:
            raise MismatchError(
                expected=f"the {' and '.join(changed)} that the run in {folder.path} was made with",
                found=f"other {' and '.join(changed)}",
                fix="restore them, choose another --out, or add --redo to replace the results",
            )
        if state.reason in ("options", "damaged") and _seconds_lost(state, log) > LONG:
            seconds = _seconds_lost(state, log)
            raise MismatchError(
                expected=f"{state.step.name} in {folder.path} as it was done before, in {seconds / 60:.0f} minutes",
                found=state.words,
                fix="add --redo to do it again, use the earlier options, or choose another --out",
            )


def _seconds_lost(state: State, log: StepLog) -> float:
    """Return the time it took to compute the results to replace; redoing the harvest also redoes the training."""
    if state.step is TRAIN:
        return log.seconds.get(TRAIN.name, 0.0)
    if state.step is HARVEST and state.reason == "options":
        return sum(log.seconds.get(name, 0.0) for name in (HARVEST.name, TRAIN.name) if name in log.records)
    return 0.0


def _refuse_other_files(path: Path) -> None:
    """Check that a folder without run.toml holds only leftovers of a killed run."""
    others = sorted(p.name for p in path.iterdir() if not p.name.startswith(".") and p.name not in _OURS)
    known = {pattern.split("/")[0] for step in (SCORE, NAME, REPORT) for pattern in step.writes}
    if [name for name in others if name not in known]:
        raise InputError(
            expected=f"{path} to be missing, empty, or a run folder",
            found="other files in it",
            fix="choose another --out",
        )


def _check_room(plan: RunPlan) -> None:
    need = sum(plan.checked.bytes.get(s.step.name, 0) for s in plan.states if not s.done)
    written = sum(p.stat().st_size for p in plan.folder.activations.glob("*/*.arrow") if p.is_file())
    try:
        check_room(plan.folder.path, need - written)
    except MachineError as error:
        fix = "free some space, or use fewer hooks or pairs, or one position per pair (--token auto)"
        raise MachineError(expected=error.expected, found=error.found, fix=fix) from None


def _adopt(folder: RunFolder, log: StepLog) -> None:
    """Write records for the steps of a folder made by a version without records."""
    try:
        found = folder.read_settings()
    except (OSError, CliplensError):
        return
    known = {f.name for f in fields(Settings)}
    asked = Settings(**{name: value for name, value in found["asked"].items() if name in known})
    outside = {"pairs": str(found.get("pairs", {}).get("sha256")), "model": model_hash(found.get("model", {}))}
    there: Mapping[str, bool] = {
        "harvest": bool(activations_hash(folder)),
        "train": (folder.sae / "cfg.json").exists(),
        "score": folder.summary.exists(),
        "name": folder.summary.exists(),
        "report": folder.report.exists(),
    }
    for step in steps_until("report", asked):
        if not there[step.name]:
            return
        log.adopt(step, asked, _adopted_inputs(step, outside, folder, log))


def _adopted_inputs(step: Step, outside: Mapping[str, str], folder: RunFolder, log: StepLog) -> dict[str, str]:
    if step is HARVEST:
        return dict(outside)
    found = {"activations": activations_hash(folder)} if "harvest" in step.needs else {}
    if "train" in step.needs and TRAIN.name in log.records:
        found["dictionary"] = log.records[TRAIN.name].fingerprint
    if step is NAME:
        found["scores"] = log.records[SCORE.name].fingerprint
    return found | report_inputs(folder, log) if step is REPORT else found


def _split_names(log: StepLog) -> None:
    """Give the names a record of their own where an earlier version recorded them with the scores."""
    both = log.records.get(SCORE.name)
    if both is None or NAME.name in log.records or "latents.parquet" not in both.outputs:
        return
    named = {name: written for name, written in both.outputs.items() if name in NAME.writes}
    scored = replace(both, outputs={name: w for name, w in both.outputs.items() if name not in named})
    log.keep(SCORE.name, scored)
    log.keep(NAME.name, replace(both, inputs={**both.inputs, "scores": scored.fingerprint}, outputs=named))
