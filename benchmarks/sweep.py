"""How long does a sweep of twelve dictionaries over one harvest take, until their names, and its resumption?

    python benchmarks/sweep.py [--processes 2]

The limit is five minutes on two cores. With --processes 2 the same sweep is also shared by two processes of torchrun;
its dictionaries must be those of one process, bit for bit. On a busy machine read the CPU seconds, those of all
processes together.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from _bench import bench
from cliplens.run import SweepFolder
from cliplens.sae import Dictionary


def seconds(command: list[str]) -> tuple[float, float]:
    """Run a command; return its seconds by the clock, and the CPU seconds of all its processes.

    Raises:
        SystemExit: it failed.
    """
    started, before = time.perf_counter(), os.times()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed: {done.stderr[-2000:]}")
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - started, used


def equal(a: Path, b: Path) -> int:
    """Return the number of dictionaries of two sweeps whose weights are equal, bit for bit."""
    first, second = SweepFolder.open(a), SweepFolder.open(b)
    count = 0
    for name in first.names:
        weights = [dict(Dictionary.load(sweep.run(name).sae).sae.state_dict()) for sweep in (first, second)]
        count += all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())
    return count


if __name__ == "__main__":
    options = {"world": (1024, "pairs of the embedded world"), "samples": (20480, "rows of each training")}
    with bench(__file__, __doc__, **options, processes=2) as b, tempfile.TemporaryDirectory() as place:
        asked = ["-m", "cliplens", "sweep", "--pairs", f"world:{b.args.world}", "--samples", str(b.args.samples)]
        asked += ["--batch-size", "256", "--d-sae", "64,128", "--k", "4,8", "--seed", "0,1,2"]
        alone, shared = (Path(place) / name for name in ("alone", "shared"))
        columns = {"what": "", "processes": "", "seconds": ".0f", "CPU seconds": ".0f"}
        b.table("A sweep of twelve dictionaries of 64 and 128 latents until the names", columns)
        b.row("harvest, training, scores and names", 1, *seconds([sys.executable, *asked, "--out", str(alone)]))
        again = seconds([sys.executable, *asked, "--out", str(alone), "--resume"])
        b.row("the same command with --resume", 1, *again)
        if b.args.processes > 1:
            start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(b.args.processes)]
            took = seconds([sys.executable, *start, *asked, "--out", str(shared)])
            b.row("harvest, training, scores and names", b.args.processes, *took)
            b.note("dictionaries equal to those of one process, bit for bit", equal(alone, shared))
