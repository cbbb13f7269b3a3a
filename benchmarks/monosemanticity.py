"""How much faster is the one-pass form of MS than its O(M^2) definition, on 50,000 samples and 1,024 latents?

    python benchmarks/monosemanticity.py [--samples 50000] [--latents 1024] [--d-judge 512] [--device ...]

The definition is timed on a few samples and extrapolated by the number of pairs. It has three forms: one pair at a time
(the published script), one row of pairs at a time, and two matrix products over all pairs.
"""

import time
from collections.abc import Callable

import torch
from torch import Tensor

from _bench import bench
from cliplens.arrays import unit_rows
from cliplens.records import SparseCodes
from cliplens_plugins.monosemanticity import ms
from cliplens_plugins.monosemanticity.one_pass import OnePassMS


def pair_by_pair(acts: Tensor, judged: Tensor) -> Tensor:
    """Compute MS with the loop of the published script, which visits every pair of samples."""
    top, bottom = torch.zeros(acts.shape[1]).double(), torch.zeros(acts.shape[1]).double()
    for i in range(len(acts)):
        for j in range(i + 1, len(acts)):
            weight = acts[i] * acts[j]
            top += weight * (judged[i] @ judged[j])
            bottom += weight
    return top / bottom


def row_by_row(acts: Tensor, judged: Tensor) -> Tensor:
    """Compute MS with one sample against all later ones at a time."""
    top, bottom = torch.zeros(acts.shape[1]).double(), torch.zeros(acts.shape[1]).double()
    for i in range(len(acts) - 1):
        later = acts[i + 1 :]
        top += acts[i] * (later.T @ (judged[i + 1 :] @ judged[i]))
        bottom += acts[i] * later.sum(0)
    return top / bottom


def all_pairs(acts: Tensor, judged: Tensor) -> Tensor:
    """Compute MS with two M x M matrix products."""
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
    with bench(
        __file__,
        __doc__,
        samples=50_000,
        latents=1024,
        d_judge=512,
        fired=(0.03, "share of samples a latent fires on"),
        seed=0,
    ) as b:
        torch.manual_seed(b.args.seed)
        m, k, device = b.args.samples, b.args.latents, b.args.device
        acts = torch.rand(m, k) * (torch.rand(m, k) < b.args.fired)
        judged = torch.nn.functional.normalize(torch.randn(m, b.args.d_judge), dim=1)
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
            b.note("streamed against ms(), largest difference", difference, ".1e")
        for name, definition, most in (
            ("definition, pair by pair", pair_by_pair, 200),
            ("definition, row by row", row_by_row, 2000),
            ("definition, all pairs at once", all_pairs, 2000),
        ):
            few = min(most, m)
            some, e = acts[:few].double(), judged[:few].double()
            some, e = some - some.amin(0), torch.nn.functional.normalize(e, dim=1)
            took, slow = seconds(lambda f=definition, a=some, e=e: f(a, e), device)
            same = (slow - ms(acts[:few], judged[:few])).abs().nan_to_num().max()
            b.note(f"{name} against ms() on {few} samples, largest difference", same, ".1e")
            rows.append((name, few, took, took * (m * (m - 1)) / (few * (few - 1))))

        b.table(
            f"{m:,} samples x {k:,} latents, judge of width {b.args.d_judge}, firing on {b.args.fired:.0%}",
            {"form": "", "samples timed": ",d", "seconds": ".2f", f"seconds at {m:,}": ",.1f", "against ms()": ",.1f"},
        )
        for name, timed, took, whole in rows:
            b.row(name, timed, took, whole, whole / ours)


if __name__ == "__main__":
    main()
