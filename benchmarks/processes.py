"""What do two processes under torchrun buy over one, in a harvest and in scoring, and is the result the same?

    python benchmarks/processes.py [--pairs world:16384] [--rounds 3]
    python benchmarks/processes.py --pairs CAPTIONS.csv [--image-root FOLDER] [--id-column NAME ...]

The commands a user types: `cliplens harvest` and `cliplens score`, alone and under `torchrun --nproc-per-node 2`, each
process with one thread, in random order. `steps` are the seconds the command itself says in steps.json: reading and
writing activations, and one pass over the codes; `whole` is the wall time with the start of Python, which scoring adds
names and the report to that one process writes. Other options go to the commands as they are.
"""

import argparse
import hashlib
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

from cliplens.records import LatentTable

TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
TIMED = {"harvest": "harvest", "score": "score"}
"""Command -> the step of steps.json that is shared out."""
TOLERANCE = 1e-9
"""Sums of processes are added in another order than those of one."""


def cliplens(command: str, out: Path, options: list[str], processes: int = 1) -> float:
    """Wall seconds of a command."""
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


def quantiles(ratios: list[float]) -> str:
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", default="world:16384")
    parser.add_argument("--rounds", type=int, default=3)
    args, more = parser.parse_known_args()
    options = ["--pairs", args.pairs, *more]
    draw = random.Random(0)
    steps: dict[str, list[float]] = {name: [] for name in TIMED}
    whole: dict[str, list[float]] = {name: [] for name in TIMED}
    same = dict.fromkeys(TIMED, True)
    with tempfile.TemporaryDirectory() as folder:
        cliplens("train", Path(folder, "trained"), ["--pairs", "world:4096", "--d-sae", "256"])
        given = {"harvest": options, "score": [*options, "--sae", str(Path(folder, "trained", "sae"))]}
        for number in range(args.rounds):
            for command, step in TIMED.items():
                took, shared, out = {}, {}, {n: Path(folder, f"{command}-{number}-{n}") for n in (1, 2)}
                for n in draw.sample([1, 2], 2):
                    took[n] = cliplens(command, out[n], given[command], n)
                    shared[n] = json.loads((out[n] / "steps.json").read_text())[step]
                steps[command].append(shared[1] / shared[2])
                whole[command].append(took[1] / took[2])
                same[command] &= bytes_of(out[1] / "activations") == bytes_of(out[2] / "activations")
                if command == "score":
                    same[command] &= same_table(out[1] / "latents.parquet", out[2] / "latents.parquet")
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, torch {version('torch')}")
    print(f"{args.pairs}, {args.rounds} rounds; one process over two, middle half\n")
    print("| command | the shared step, times faster | whole command | result |\n|---|---|---|---|")
    results = {"harvest": "same bytes", "score": "same bytes, same table"}
    for command in TIMED:
        said = results[command] if same[command] else "DIFFERS"
        print(f"| `{command}` | {quantiles(steps[command])} | {quantiles(whole[command])} | {said} |")


if __name__ == "__main__":
    main()
