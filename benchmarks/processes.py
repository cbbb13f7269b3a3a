"""How much faster are two processes under torchrun than one, in harvest and scoring, and is the result the same?

    python benchmarks/processes.py [--pairs world:16384] [--rounds 3]
    python benchmarks/processes.py --pairs CAPTIONS.csv --options="--image-root FOLDER --id-column NAME"

Runs `cliplens harvest` and `cliplens score`, alone and under `torchrun --nproc-per-node 2`, each process with one
thread, in random order. `steps` are the seconds in steps.json: reading and writing activations, and one pass over the
codes. `whole` is the wall time including the start of Python and, for scoring, the names and the report, which one
process writes. `--options` are passed to the commands unchanged.
"""

import hashlib
import json
import os
import random
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from _bench import bench, ratio
from cliplens.records import LatentTable

TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
TIMED = {"harvest": "harvest", "score": "score"}
"""The step in steps.json that the processes share, by command."""
TOLERANCE = 1e-9
"""Relative tolerance, because two processes add sums in another order than one."""


def cliplens(command: str, out: Path, options: list[str], processes: int = 1) -> float:
    """Return the wall seconds of a command."""
    start = time.perf_counter()
    launch = TORCHRUN if processes > 1 else []
    asked = [sys.executable, *launch, "-m", "cliplens", command, *options, "--threads", "1", "--out", str(out)]
    done = subprocess.run(
        asked, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return time.perf_counter() - start


def bytes_of(folder: Path) -> dict[str, str]:
    files = (p for p in sorted(folder.rglob("*")) if p.is_file())
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def same_table(one: Path, two: Path) -> bool:
    alone, together = LatentTable.load(one), LatentTable.load(two)
    return list(alone) == list(together) and all(
        np.allclose(alone[n], together[n], rtol=0, atol=TOLERANCE, equal_nan=True)
        if alone[n].dtype.kind == "f"
        else np.array_equal(alone[n], together[n])
        for n in alone
    )


def main() -> None:
    with bench(__file__, __doc__, pairs="world:16384", rounds=3, options="") as b:
        options = ["--pairs", b.args.pairs, *shlex.split(b.args.options)]
        draw = random.Random(0)
        steps: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in TIMED}
        whole: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in TIMED}
        same = dict.fromkeys(TIMED, True)
        with tempfile.TemporaryDirectory() as folder:
            cliplens("train", Path(folder, "trained"), ["--pairs", "world:4096", "--d-sae", "256"])
            given = {"harvest": options, "score": [*options, "--sae", str(Path(folder, "trained", "sae"))]}
            for number in range(b.args.rounds):
                for command, step in TIMED.items():
                    out = {n: Path(folder, f"{command}-{number}-{n}") for n in (1, 2)}
                    for n in draw.sample([1, 2], 2):
                        whole[command][n - 1].append(cliplens(command, out[n], given[command], n))
                        steps[command][n - 1].append(json.loads((out[n] / "steps.json").read_text())["seconds"][step])
                    same[command] &= bytes_of(out[1] / "activations") == bytes_of(out[2] / "activations")
                    if command == "score":
                        same[command] &= same_table(out[1] / "latents.parquet", out[2] / "latents.parquet")
        b.table(
            f"{b.args.pairs}: one process over two, times faster",
            {"command": "", "the shared step": ".2f", "whole command": ".2f", "result": ""},
        )
        results = {"harvest": "same bytes", "score": "same bytes, same table"}
        for command in TIMED:
            said = results[command] if same[command] else "DIFFERS"
            b.row(command, ratio(*steps[command]), ratio(*whole[command]), said)


if __name__ == "__main__":
    main()
