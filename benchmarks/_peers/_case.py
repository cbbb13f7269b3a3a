"""Shared part of the scripts that run in the environment of a peer: options, time and the result file.

A script defines one function per peer, named after it, and calls `main`. The function returns what it measured as a
dictionary of plain values. `asked.given` is the folder of weights, pictures and arrays that every peer gets, and
`asked.path` the folder of a peer that has no package.
"""

import argparse
import importlib
import importlib.metadata
import json
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

Options = argparse.Namespace
Case = Callable[[Options], dict[str, Any]]

PACKAGES = {
    "plain_hooks": "torch",
    "open_clip": "open_clip_torch",
    "sparsify": "eai-sparsify",
}
"""Names of packages that differ from those of the peers by more than a dash."""


def main(peers: Mapping[str, Case], doc: str | None, **options: Any) -> None:
    """Run the case of the peer of the command line and write what it returns."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=peers)
    parser.add_argument("--given", type=Path, required=True)
    parser.add_argument("--path", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    for name, default in options.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    found = peers[asked.peer](asked)
    found |= {"version": version(asked.peer), "torch": torch.__version__, "python": platform.python_version()}
    asked.out.write_text(json.dumps(found))


def version(peer: str) -> str:
    """Return the version of the package of a peer; "" where it has none."""
    try:
        return importlib.metadata.version(PACKAGES.get(peer, peer.replace("_", "-")))
    except importlib.metadata.PackageNotFoundError:
        return ""


def seconds(work: Callable[[], object]) -> float:
    """Return the CPU seconds of a call, those of processes it started and waited for included."""
    before = os.times()
    work()
    after = os.times()
    return sum(after[:4]) - sum(before[:4])


def ratios(alone: Callable[[], object], other: Callable[[], object], rounds: int) -> dict[str, Any]:
    """Return the CPU time of one call divided by that of another one, in turns of random order."""
    draw = random.Random(0)
    found = []
    alone(), other()
    for _ in range(rounds):
        took = {}
        for work in draw.sample([alone, other], 2):
            started = time.process_time()
            work()
            took[work] = time.process_time() - started
        found.append(took[other] / took[alone])
    return {"ratio": statistics.median(found), "ratios": found}


def model(asked: Options) -> Any:
    """Return the open_clip model with the weights that every peer gets."""
    import open_clip

    found = open_clip.create_model((asked.given / "model.txt").read_text())
    found.load_state_dict(torch.load(asked.given / "weights.pt", weights_only=True))
    return found.eval()


def arrays(asked: Options, name: str) -> dict[str, torch.Tensor]:
    """Return the arrays of a file of the given folder."""
    with np.load(asked.given / f"{name}.npz") as held:
        return {key: torch.from_numpy(held[key]) for key in held.files if held[key].dtype.kind != "U"}


def source(asked: Options, name: str) -> ModuleType:
    """Import a module from the folder of a peer that has no package."""
    sys.path.insert(0, str(asked.path))
    return importlib.import_module(name)


def on_cpu() -> None:
    """Let code that asks for a GPU by name run on the CPU."""
    torch.Tensor.cuda = lambda self, *args, **kwargs: self  # type: ignore[method-assign, assignment]
