"""Refuse damaged files of a run, and name the command that makes them again."""

import shlex
from dataclasses import fields, replace

from cliplens.errors import CliplensError, DamagedError
from cliplens.run.steps import HARVEST, NAME, SCORE, SETTINGS, TRAIN, StepLog
from cliplens.runfolder import RunFolder
from cliplens.settings import Settings

_READ = (SCORE.name, NAME.name)
"""Steps whose files are compared with their hashes before results are made of them; a dictionary checks its own."""


def check_whole(folder: RunFolder, *names: str) -> None:
    """Check that scores and names of a run are as they were written; with `names` only these files.

    Raises:
        DamagedError: a file is missing or was altered; names the command that makes it again.
    """
    log = StepLog(folder)
    for step in _READ:
        record = log.records.get(step)
        if record is None:
            continue
        outputs = {n: w for n, w in record.outputs.items() if not names or n in names}
        for name, problem in replace(record, outputs=outputs).problems(folder.path):
            raise DamagedError(
                expected=f"{folder.path / name} as it was written",
                found=f"that it is {problem}",
                fix=f"run {resume_command(folder)}",
            )


def resume_command(folder: RunFolder) -> str:
    """Return the command that goes on with a run, with the options of the run."""
    settings = StepLog(folder).records.get(SETTINGS)
    try:
        asked = folder.read_settings()["asked"]
        if settings and any(settings.problems(folder.path)):
            asked = settings.options["asked"]
    except (OSError, CliplensError):
        if settings is None:
            return f"cliplens run --resume --out {shlex.quote(str(folder.path))} with the options of the run"
        asked = settings.options["asked"]
    defaults = {f.name: f.default for f in fields(Settings)}
    options = []
    for name, value in asked.items():
        if name in defaults and defaults[name] != value:
            option = name.replace("_", "-")
            flag = [f"--{option}" if value else f"--no-{option}"]
            values = value if isinstance(value, list) else [value]
            options += flag if isinstance(value, bool) else [f"--{option}", *map(str, values)]
    until = settings.options.get("until") if settings else None
    command = until if until in (HARVEST.name, TRAIN.name) else "score" if "sae" in asked else "run"
    words = ["cliplens", command, *options, "--resume", "--out", str(folder.path)]
    return shlex.join(words)
