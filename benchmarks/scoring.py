"""What does scoring cost beside encoding, and does its memory stay flat?

    python benchmarks/scoring.py [--d-in 512] [--d-sae 4096] [--k 32] [--batch 1024] [--batches 8] [--rounds 12]

Each round encodes a few batches of image-caption pairs with one matrix product per modality, then shows the sparse
codes to the metrics; the ratios are of the same round, what is put off until several batches have come included. Given
are medians and 95 % intervals over rounds, of CPU seconds of one thread, from the first pairs on. The totals hold every
metric a run uses but `ground_truth`, which needs a world whose truth is known. Memory is what the metrics hold after
the pairs and after as many again. EmbSim keeps at most 20 d_sae + 30 * 1,024 embeddings per modality and judge, and the
draws of bridge and gap have a budget: they grow until they reach that.
"""

import argparse
import platform
import random
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version

import numpy as np
import torch

from cliplens import registry
from cliplens.contracts import Metric
from cliplens.records import Batch, PairedActs, PairedCodes, SparseCodes
from cliplens_plugins.modality import ModalityMetric

LEFT_OUT = ("ground_truth",)
BOOTSTRAP = "mds, with 200 bootstrap weights"


def made() -> dict[str, Metric]:
    """Every metric installed, modality once without and once with its bootstrap."""
    found: dict[str, Metric] = {p.name: m for p, m in registry.made("metrics", Metric) if p.name not in LEFT_OUT}
    return {**found, "mds": ModalityMetric(0), BOOTSTRAP: ModalityMetric()}


def batch_of(number: int, options: argparse.Namespace) -> Batch:
    """A batch of sparse codes with heavy-tailed firing, and what belongs to it."""
    g = torch.Generator().manual_seed(number)
    ids = tuple(f"pair-{number}-{i}" for i in range(options.batch))
    weights = 1.0 / torch.arange(1, options.d_sae + 1) ** 0.7
    sides = {}
    for side in ("image", "text"):
        latents = torch.multinomial(weights.expand(options.batch, -1), options.k, generator=g).sort(1).values
        rows = torch.arange(options.batch).repeat_interleave(options.k)
        values = torch.rand(options.batch * options.k, generator=g) + 0.1
        sides[side] = SparseCodes(rows, latents.reshape(-1), values, options.batch, options.d_sae)
    acts, back, judged = (
        PairedActs(ids, *(torch.randn(options.batch, options.d_in, generator=g) for _ in range(2))) for _ in range(3)
    )
    codes = PairedCodes(ids, sides["image"], sides["text"])
    target = torch.rand(options.batch, generator=g).numpy() < 0.3
    return Batch(acts, codes, back, {"judge": judged}, targets={"target": target}, raw=acts)


def fresh(batch: Batch) -> Batch:
    """The same batch with nothing remembered from an earlier metric."""
    return replace(batch, codes=PairedCodes(batch.codes.ids, batch.codes.image, batch.codes.text))


def seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def held(metric: Metric) -> int:
    """Bytes of a metric's state."""
    return sum(t.numel() * t.element_size() for t in metric.state().values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    defaults = {"d-in": 512, "d-sae": 4096, "k": 32, "batch": 1024, "batches": 8, "rounds": 12}
    for name, default in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    torch.set_num_threads(1)
    encoder = torch.randn(options.d_in, options.d_sae)
    alone, together, booted = made(), made(), made()
    del together[BOOTSTRAP], booted["mds"]
    ratios: dict[str, list[float]] = {name: [] for name in alone}
    encode, streamed, with_bootstrap = [], [], []
    order = list(alone)
    for number in range(options.rounds):
        batches = [batch_of(number * options.batches + n, options) for n in range(options.batches)]
        encode.append(seconds(lambda bs=batches: [(b.acts.image @ encoder, b.acts.text @ encoder) for b in bs]))
        random.Random(number).shuffle(order)
        for name in order:
            shown = [fresh(b) for b in batches]
            ratios[name].append(seconds(lambda n=name, bs=shown: [alone[n].update(b) for b in bs]) / encode[-1])
        for metrics, ratio in ((together, streamed), (booted, with_bootstrap)):
            shown = [fresh(b) for b in batches]
            took = seconds(lambda ms=metrics, bs=shown: [m.update(b) for b in bs for m in ms.values()])
            ratio.append(took / encode[-1])
    print(f"{options.batch} pairs a batch, d_in {options.d_in} (judge too), d_sae {options.d_sae}, k {options.k};")
    print(
        f"{platform.machine()}, {torch.get_num_threads()} thread(s), torch {version('torch')}, numpy {version('numpy')}"
    )
    print(f"encode, both modalities: median {np.median(encode) / options.batches * 1e3:.1f} ms a batch\n")
    print("| per batch, against the encode product | median | 95 % interval | reach |\n|---|---|---|---|")
    totals = {
        "all streamed metrics but the bootstrap": (streamed, "0.5x"),
        "the same with 200 bootstrap weights": (with_bootstrap, "1.5x"),
    }
    for name, (values, reach) in {**{n: (v, "") for n, v in ratios.items()}, **totals}.items():
        low, high = np.quantile(values, [0.025, 0.975])
        print(f"| {name} | {np.median(values):.2f}x | {low:.2f}-{high:.2f} | {reach} |")
    sizes = {name: held(metric) for name, metric in alone.items()}
    seen = options.rounds * options.batches
    for number in range(seen, 2 * seen):
        batch = batch_of(number, options)
        for metric in alone.values():
            metric.update(batch)
    print(
        f"\n| held by | after {seen * options.batch} pairs, MB | after as many again, MB | growth |\n|---|---|---|---|"
    )
    for name, metric in alone.items():
        now = held(metric)
        print(f"| {name} | {sizes[name] / 1e6:.1f} | {now / 1e6:.1f} | {now / sizes[name] - 1:+.1%} |")


if __name__ == "__main__":
    main()
