"""Write reports of a run into its folder."""

from collections.abc import Sequence
from pathlib import Path

from cliplens import registry
from cliplens.contracts import Reporter
from cliplens.files import check_room, remove_leftovers, sha256_of
from cliplens.run.lock import locked
from cliplens.run.remedies import check_whole
from cliplens.run.results import entered
from cliplens.run.steps import NAME, REPORT, Record, StepLog, outputs_of, versions
from cliplens.runfolder import RunFolder


def write_report(folder: RunFolder, names: Sequence[str] = ("html",)) -> Path:
    """Write the named reports (entry points `cliplens.reports`) into the run folder; return the path of the last.

    Raises:
        DamagedError: scores or names were altered since they were written.
        MachineError: another process works in the run folder, or the disk has no room.
    """
    check_whole(folder)
    check_room(folder.report, report_bytes(folder))
    with locked(folder.path):
        remove_leftovers(folder.path)
        written = [_write(folder, name) for name in names]
    return written[-1]


def make_report(folder: RunFolder, name: str) -> Path:
    """Write one report, without a lock and without a record; return its path."""
    return registry.find("reports", name).make(Reporter).write(folder.path)


def report_bytes(folder: RunFolder) -> int:
    """Return the bytes a report takes, about: those of the pictures and tables it shows, as text."""
    shown = [*folder.exemplars.rglob("*"), folder.latents]
    return 2 * sum(path.stat().st_size for path in shown if path.is_file())


def _write(folder: RunFolder, name: str) -> Path:
    path = make_report(folder, name)
    log = StepLog(folder)
    if log.legacy or NAME.name not in log.records:
        return path
    whole = path if path.parent == folder.path else path.parent
    outputs = outputs_of({whole.relative_to(folder.path).as_posix() + ("/" if whole.is_dir() else ""): whole})
    step = REPORT.name if path == folder.report else f"report --form {name}"
    options = {} if path == folder.report else {"command": entered(folder, f"report --form {name}")}
    log.keep(step, Record(options, report_inputs(folder, log), outputs, versions()))
    log.save()
    return path


def report_inputs(folder: RunFolder, log: StepLog) -> dict[str, str]:
    """Return the inputs of a report with their hashes: names, and what was steered."""
    steered = folder.steering / "steering.json"
    named = {"names": log.records[NAME.name].fingerprint} if NAME.name in log.records else {}
    return named | {"steering": sha256_of(steered) if steered.is_file() else ""}
