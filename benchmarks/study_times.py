"""How long do studies of a finished run take? `cliplens contribution`, `bias`, `attack` and `advise`, one by one.

    cliplens demo --out cliplens-demo
    python benchmarks/study_times.py --run cliplens-demo

Each command runs in a process of its own on a copy of the run, with its default options. CPU seconds are those of the
process and its children, so other work on the machine hardly counts; wall seconds are what a user waits here and now.
"""

import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _bench import Bench, bench

COMMANDS = ("contribution", "bias", "attack", "advise")
LIMIT = 300.0
"""Seconds that a study of the embedded world may take on two cores."""


def main(b: Bench) -> None:
    """Print a row per command."""
    b.table(
        "Studies of one run", {"command": "", "CPU seconds": ".0f", "wall seconds": ".0f", "under five minutes": ""}
    )
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copytree(b.args.run, Path(folder) / "run"))
        for command in b.args.commands:
            cpu, wall = spent([sys.executable, "-m", "cliplens", command, str(copy)])
            b.row(f"cliplens {command}", cpu, wall, str(cpu < LIMIT))


def spent(command: list[str]) -> tuple[float, float]:
    """Run a command; return its CPU seconds and its wall seconds."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu, time.perf_counter() - started


if __name__ == "__main__":
    with bench(__file__, __doc__, run="cliplens-demo", commands=list(COMMANDS)) as found:
        main(found)
