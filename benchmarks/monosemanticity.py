"""What does the one-pass form of MS buy over its O(M^2) definition, on 50,000 samples and 1,024 latents?

    python benchmarks/monosemanticity.py [--samples 50000] [--latents 1024] [--d-judge 512] [--device ...]

The definition is timed on a few samples and extrapolated by the number of pairs; its three forms are the published
script's (one pair at a time), a row of pairs at a time, and two matrix products over all pairs.
"""

import argparse
import platform
import time
from collections.abc import Callable
from importlib.metadata import version

import torch
from torch import Tensor

from cliplens.arrays import unit_rows
from cliplens.records import SparseCodes
from cliplens_plugins.monosemanticity import ms
from cliplens_plugins.monosemanticity.one_pass import OnePassMS


def pair_by_pair(acts: Tensor, judged: Tensor) -> Tensor:
    """The published script's loop: every pair of samples is visited."""
    top, bottom = torch.zeros(acts.shape[1]).double(), torch.zeros(acts.shape[1]).double()
    for i in range(len(acts)):
        for j in range(i + 1, len(acts)):
            weight = acts[i] * acts[j]
            top += weight * (judged[i] @ judged[j])
            bottom += weight
    return top / bottom


def row_by_row(acts: Tensor, judged: Tensor) -> Tensor:
    """One sample against all later ones at a time."""
    top, bottom = torch.zeros(acts.shape[1]).double(), torch.zeros(acts.shape[1]).double()
    for i in range(len(acts) - 1):
        later = acts[i + 1 :]
        top += acts[i] * (later.T @ (judged[i + 1 :] @ judged[i]))
        bottom += acts[i] * later.sum(0)
    return top / bottom


def all_pairs(acts: Tensor, judged: Tensor) -> Tensor:
    """All pairs at once: two M x M products."""
    similar = (judged @ judged.T).fill_diagonal_(0)
    every = torch.ones_like(similar).fill_diagonal_(0)
    return (acts * (similar @ acts)).sum(0) / (acts * (every @ acts)).sum(0)


def seconds(work: Callable[[], Tensor], device: str) -> tuple[float, Tensor]:
    started = time.perf_counter()
    result = work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=50_000)
    parser.add_argument("--latents", type=int, default=1024)
    parser.add_argument("--d-judge", type=int, default=512)
    parser.add_argument("--fired", type=float, default=0.03, help="share of samples a latent fires on")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    m, k, device = options.samples, options.latents, options.device
    acts = torch.rand(m, k) * (torch.rand(m, k) < options.fired)
    judged = torch.nn.functional.normalize(torch.randn(m, options.d_judge), dim=1)
    acts, judged = acts.to(device), judged.to(device)

    ours, scores = seconds(lambda: ms(acts, judged), device)
    rows = [(f"ms(), one pass over {m:,} samples", m, ours, ours)]
    if device == "cpu":
        streamed = OnePassMS()
        start = time.perf_counter()
        for a in range(0, m, 1024):
            streamed.update(SparseCodes.from_dense(acts[a : a + 1024]), unit_rows(judged[a : a + 1024]))
        took = time.perf_counter() - start
        rows.append(("the metric, streamed in batches of 1024", m, took, took))
        difference = float((streamed.scores() - scores).abs().nan_to_num().max())
        print(f"streamed against ms(): largest difference {difference:.1e}")
    for name, definition, few in (
        ("definition, pair by pair", pair_by_pair, 200),
        ("definition, row by row", row_by_row, 2000),
        ("definition, all pairs at once", all_pairs, 2000),
    ):
        a, e = acts[:few].double(), judged[:few].double()
        a, e = a - a.amin(0), torch.nn.functional.normalize(e, dim=1)
        took, slow = seconds(lambda f=definition, a=a, e=e: f(a, e), device)
        same = (slow - ms(acts[:few], judged[:few])).abs().nan_to_num().max()
        print(f"{name} against ms() on {few} samples: largest difference {float(same):.1e}")
        rows.append((name, few, took, took * (m * (m - 1)) / (few * (few - 1))))

    where = (
        torch.cuda.get_device_name()
        if device == "cuda"
        else f"{platform.machine()}, {torch.get_num_threads()} thread(s)"
    )
    print(f"\n{m:,} samples x {k:,} latents, judge of width {options.d_judge}, firing on {options.fired:.0%}; {where};")
    print(f"torch {version('torch')}, numpy {version('numpy')}, python {platform.python_version()}\n")
    print(f"| form | samples timed | seconds | seconds at {m:,} | against ms() |\n|---|---|---|---|---|")
    for name, timed, took, whole in rows:
        print(f"| {name} | {timed:,} | {took:.2f} | {whole:,.1f} | {whole / ours:,.1f}x |")


if __name__ == "__main__":
    main()
