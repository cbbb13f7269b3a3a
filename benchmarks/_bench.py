"""Shared parts of the benchmark scripts: options, machine, timing in turns, estimates, tables and the JSON result.

    with bench(__file__, __doc__, rounds=15, model="ViT-B-32", families=False) as b:
        seconds = alternate({"stock": run_stock, "hooked": run_hooked}, b.args.rounds)
        b.table("ViT-B-32", {"case": "", "ms": ".1f", "ratio": ".3f"})
        b.row("hooked", 1e3 * median(seconds["hooked"]), ratio(seconds["hooked"], seconds["stock"]))
        b.note("peak memory, MiB", peak_memory())

Each keyword of `bench` is an option of the command line with that default. Every script also takes `--threads`,
`--device` and `--results`. Tables are printed in Markdown as their rows arrive. When the block ends without an error,
everything is written to `RESULTS/NAME.json`.
"""

import argparse
import json
import os
import platform
import random
import resource
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("cliplens", "torch", "open_clip_torch", "transformer-lens", "sae-lens", "transformers", "timm")
PACKAGES += ("diffusers", "numpy", "scipy")


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval; `low` and `high` are nan for a single value."""

    value: float
    low: float
    high: float

    def __format__(self, spec: str) -> str:
        if np.isnan(self.low):
            return format(self.value, spec)
        return f"{self.value:{spec}} ({self.low:{spec}} to {self.high:{spec}})"


def ratio(over: Sequence[float], under: Sequence[float], *, resamples: int = 4000) -> Estimate:
    """Return the median of paired ratios with a 95 % percentile bootstrap interval over rounds."""
    ratios = np.asarray(over, dtype=float) / np.asarray(under, dtype=float)
    drawn = np.random.default_rng(0).integers(0, len(ratios), (resamples, len(ratios)))
    low, high = np.quantile(np.median(ratios[drawn], axis=1), [0.025, 0.975])
    return Estimate(float(np.median(ratios)), float(low), float(high))


def mean(values: Sequence[float]) -> Estimate:
    """Return the mean with its 95 % t-interval; nan values are left out."""
    from scipy.stats import t

    known = [v for v in values if not np.isnan(v)]
    if len(known) < 2:
        return Estimate(known[0] if known else float("nan"), float("nan"), float("nan"))
    half = t.ppf(0.975, len(known) - 1) * statistics.stdev(known) / len(known) ** 0.5
    middle = statistics.fmean(known)
    return Estimate(middle, float(middle - half), float(middle + half))


def alternate(
    cases: Mapping[str, Callable[[], object]], rounds: int, *, device: str = "cpu", warmup: int = 1, seed: int = 0
) -> dict[str, list[float]]:
    """Return the seconds of each case and round. Each round runs every case once, in random order.

    On a CPU, this is the CPU time of the process, so that other work on the machine does not count. On a GPU, it is the
    wall time between synchronisations.
    """
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    order = random.Random(seed)
    for number in range(-warmup, rounds):
        for name in order.sample(list(cases), len(cases)):
            took = timed(cases[name], device)
            if number >= 0:
                seconds[name].append(took)
    return seconds


def timed(run: Callable[[], object], device: str = "cpu") -> float:
    """Return the seconds one call takes: CPU time of the process, or wall time on a GPU."""
    gpu = str(device) != "cpu"
    clock = time.perf_counter if gpu else time.process_time
    if gpu:
        torch.cuda.synchronize()
    started = clock()
    run()
    if gpu:
        torch.cuda.synchronize()
    return clock() - started


def peak_memory() -> float:
    """Return the largest resident memory of this process in MiB.

    On Linux this is VmHWM, because `ru_maxrss` of a forked process starts at the value of its parent.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        unit = 2**20 if sys.platform == "darwin" else 2**10
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    return float(next(line for line in status.read_text().splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


def machine(threads: int, device: str = "cpu") -> dict[str, Any]:
    """Return processor, cores, threads, GPU and Python version."""
    gpu = torch.cuda.get_device_name() if str(device).startswith("cuda") else None
    return {
        "cpu": _processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "gpu": gpu,
        "python": platform.python_version(),
    }


def versions() -> dict[str, str]:
    """Return the versions of the packages a figure may depend on."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


class Bench:
    """Collects the tables and notes of one script. `args` holds its options."""

    def __init__(self, name: str, args: argparse.Namespace) -> None:
        self.args = args
        self.tables: list[dict[str, Any]] = []
        self.notes: dict[str, Any] = {}
        self.data: dict[str, Any] = {}
        self._name = name
        self._formats: list[str] = []
        self._started = time.perf_counter()

    def table(self, title: str, columns: Mapping[str, str] | Sequence[str]) -> None:
        """Start a table. `columns` maps each head to the format of its numbers; "" means unformatted."""
        heads = dict(columns) if isinstance(columns, Mapping) else dict.fromkeys(columns, ".3g")
        self.tables.append({"title": title, "columns": list(heads), "rows": []})
        self._formats = list(heads.values())
        print(f"\n{title}\n\n| {' | '.join(heads)} |\n|{'---|' * len(heads)}")

    def row(self, *cells: Any) -> None:
        """Add a row to the table that was started last."""
        table = self.tables[-1]
        table["rows"].append([_plain(cell) for cell in cells])
        shown = [_shown(cell, spec) for cell, spec in zip(cells, self._formats, strict=True)]
        print(f"| {' | '.join(shown)} |", flush=True)

    def note(self, key: str, value: Any, spec: str = "") -> None:
        """Print and store a figure that is not part of a table."""
        self.notes[key] = _plain(value)
        print(f"{key}: {_shown(value, spec)}", flush=True)

    def keep(self, key: str, value: Any) -> None:
        """Store raw figures in the result file, without printing them."""
        self.data[key] = value

    def variant(self, name: str) -> None:
        """Write the result to NAME-VARIANT.json, beside that of the script without these options."""
        self._name += f"-{name}"

    def save(self) -> Path:
        """Write the result file and return its path."""
        folder = Path(self.args.results)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self._name}.json"
        result = {
            "name": self._name,
            "command": _command(sys.argv),
            "date": datetime.now(UTC).date().isoformat(),
            "commit": _commit(),
            "machine": machine(self.args.threads, self.args.device),
            "versions": versions(),
            "seconds": round(time.perf_counter() - self._started, 1),
            "notes": self.notes,
            "tables": self.tables,
            **({"data": self.data} if self.data else {}),
        }
        path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
        return path


def _command(words: Sequence[str]) -> str:
    """Return the command line without the folder of the results, which is a path of one machine."""
    kept = [word for n, word in enumerate(words[1:], 1) if "--results" not in (word, words[n - 1])]
    return shlex.join(["python", f"benchmarks/{Path(words[0]).name}", *kept])


@contextmanager
def bench(file: str, doc: str | None, **options: Any) -> Iterator[Bench]:
    """Parse the command line, print the machine line, yield a `Bench`, and write its result file.

    Each of `options` becomes `--name-with-dashes` with that default: False makes a switch, a list takes several values
    of its first item's type, `None` takes a string, and a tuple `(default, help)` adds a help text.
    """
    args = _parser(doc, options).parse_args()
    torch.set_num_threads(args.threads)
    name = Path(file).stem if Path(file).stem != "__main__" else Path(file).parent.name
    found = Bench(name, args)
    where = machine(args.threads, args.device)
    print(f"{where['gpu'] or where['cpu']}, {args.threads} thread(s), Python {where['python']}; ", end="")
    print(", ".join(f"{package} {number}" for package, number in versions().items()), flush=True)
    yield found
    print(f"\nWritten to {found.save()}")


def _parser(doc: str | None, options: Mapping[str, Any]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, given in options.items():
        default, text = given if isinstance(given, tuple) else (given, None)
        flag = f"--{name.replace('_', '-')}"
        if default is False:
            parser.add_argument(flag, action="store_true", help=text)
        elif isinstance(default, list):
            kind = type(default[0]) if default else str
            parser.add_argument(flag, nargs="+", type=kind, default=default, help=text)
        else:
            kind = str if default is None else type(default)
            parser.add_argument(flag, type=kind, default=default, help=text)
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (default 1)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--results", default=str(RESULTS), help="folder the result is written to")
    return parser


def _plain(value: Any) -> Any:
    """Convert a value for JSON; nan and infinities become null."""
    if isinstance(value, Estimate):
        return {key: _plain(number) for key, number in asdict(value).items()}
    if isinstance(value, np.generic | torch.Tensor):
        return _plain(value.item())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | dict | list | None) else str(value)


def _shown(value: Any, spec: str) -> str:
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return "-"
    if isinstance(value, Estimate) and np.isnan(value.value):
        return "-"
    if isinstance(value, str | bool) or (isinstance(value, int) and spec.endswith("f")):
        return str(value)
    return format(value, spec)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _commit() -> str | None:
    """Return the commit the script ran on, with "+" where tracked files were changed."""
    head, changed = _git("rev-parse", "--short", "HEAD"), _git("status", "--porcelain", "-uno")
    return head + ("+" if changed else "") or None


def _git(*arguments: str) -> str:
    try:
        asked = ["git", *arguments]
        return subprocess.run(
            asked, cwd=Path(__file__).parent, capture_output=True, text=True, check=False
        ).stdout.strip()
    except OSError:
        return ""
