"""What does scoring cost beside encoding, and does its memory stay flat?

    python benchmarks/scoring.py [--d-in 512] [--d-sae 4096] [--k 32] [--batch 1024] [--rounds 12]

Each round encodes a batch of image-caption pairs with one matrix product per modality, then shows the sparse codes to
the metrics; the ratios are of the same round, their medians and 95 % intervals over rounds in random order, of CPU
seconds of one thread. Memory is what the metrics hold after the pairs and after as many again. EmbSim keeps at most
d_sae * 50 embeddings per modality and the bridge at most d_sae^2 products: they grow until they reach that.
"""

import argparse
import platform
import random
import time
from collections.abc import Callable
from importlib.metadata import version

import numpy as np
import torch

from cliplens.contracts import Metric
from cliplens.records import Batch, PairedActs, PairedCodes, SparseCodes
from cliplens_plugins.fidelity import FidelityMetric
from cliplens_plugins.modality import BridgeMetric, ModalityMetric
from cliplens_plugins.monosemanticity import EmbSimMetric, MonosemanticityMetric

METRICS: dict[str, Callable[[], Metric]] = {
    "modality (MDS, variants, co-firing)": lambda: ModalityMetric(0),
    "monosemanticity (MS, MMS)": MonosemanticityMetric,
    "fidelity": FidelityMetric,
}
OTHERS = tuple(METRICS)[1:]
BOOTSTRAP = "modality with 200 bootstrap weights"
EXTRA: dict[str, Callable[[], Metric]] = {
    BOOTSTRAP: ModalityMetric,
    "EmbSim, WinRate": EmbSimMetric,
    "bridge": BridgeMetric,
}


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
    return Batch(acts, PairedCodes(ids, sides["image"], sides["text"]), back, {"judge": judged})


def fresh(batch: Batch) -> Batch:
    """The same batch with nothing remembered from an earlier metric."""
    return Batch(
        batch.acts,
        PairedCodes(batch.codes.ids, batch.codes.image, batch.codes.text),
        batch.reconstruction,
        batch.judged,
    )


def seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def held(metric: Metric) -> int:
    """Bytes of a metric's state."""
    return sum(t.numel() * t.element_size() for t in metric.state().values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("d-in", 512), ("d-sae", 4096), ("k", 32), ("batch", 1024), ("rounds", 12)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    torch.set_num_threads(1)
    encoder = torch.randn(options.d_in, options.d_sae)
    metrics = {name: make() for name, make in {**METRICS, **EXTRA}.items()}
    for metric in metrics.values():
        metric.update(batch_of(10**6, options))
    ratios: dict[str, list[float]] = {name: [] for name in metrics}
    encode, streamed, booted = [], [], []
    order = list(metrics)
    for number in range(options.rounds):
        batch = batch_of(number, options)
        encode.append(seconds(lambda b=batch: (b.acts.image @ encoder, b.acts.text @ encoder)))
        random.Random(number).shuffle(order)
        for name in order:
            ratios[name].append(seconds(lambda n=name, b=batch: metrics[n].update(fresh(b))) / encode[-1])
        shared, again = fresh(batch), fresh(batch)
        streamed.append(seconds(lambda b=shared: [metrics[n].update(b) for n in METRICS]) / encode[-1])
        booted.append(seconds(lambda b=again: [metrics[n].update(b) for n in (BOOTSTRAP, *OTHERS)]) / encode[-1])
    print(f"{options.batch} pairs a batch, d_in {options.d_in} (judge too), d_sae {options.d_sae}, k {options.k};")
    print(
        f"{platform.machine()}, {torch.get_num_threads()} thread(s), torch {version('torch')}, numpy {version('numpy')}"
    )
    print(f"encode, both modalities: median {np.median(encode) * 1e3:.1f} ms\n")
    print("| per batch, against the encode product | median | 95 % interval | reach |\n|---|---|---|---|")
    totals = {
        "all streamed metrics but the bootstrap": (streamed, "0.5x"),
        "the same with 200 bootstrap weights": (booted, "1.5x"),
    }
    for name, (values, reach) in {**{n: (v, "") for n, v in ratios.items()}, **totals}.items():
        low, high = np.quantile(values, [0.025, 0.975])
        print(f"| {name} | {np.median(values):.2f}x | {low:.2f}-{high:.2f} | {reach} |")
    sizes = {name: held(metric) for name, metric in metrics.items()}
    for number in range(options.rounds, 2 * options.rounds + 1):
        for metric in metrics.values():
            metric.update(batch_of(number, options))
    print(
        f"\n| held by | after {options.rounds + 1} batches, MB | after twice as many, MB | growth |\n|---|---|---|---|"
    )
    for name, metric in metrics.items():
        now = held(metric)
        print(f"| {name} | {sizes[name] / 1e6:.1f} | {now / 1e6:.1f} | {now / sizes[name] - 1:+.1%} |")


if __name__ == "__main__":
    main()
