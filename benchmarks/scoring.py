"""What does scoring cost compared with encoding, and is its memory bounded?

    python benchmarks/scoring.py [--d-in 512] [--d-sae 4096] [--k 32] [--batch 1024] [--batches 8] [--rounds 12]

Each round encodes a few batches of image-caption pairs with one matrix product per modality, then updates the metrics
with the sparse codes. Ratios are taken within a round, and include work that metrics postpone over several batches. The
table gives medians and 95 % intervals over rounds, in CPU seconds of one thread. The totals include every metric of a
run except `ground_truth`, which needs a known truth. Memory is the size of the metrics' states after the pairs, and
after twice as many. EmbSim keeps at most 20 d_sae + 30 * 1,024 embeddings per modality and judge; the draws of bridge
and gap grow up to a budget.
"""

import random
from argparse import Namespace
from dataclasses import replace
from statistics import median

import torch

from _bench import bench, ratio, timed
from cliplens import registry
from cliplens.contracts import Metric
from cliplens.records import Batch, PairedActs, PairedCodes, SparseCodes
from cliplens_plugins.modality import ModalityMetric

LEFT_OUT = ("ground_truth",)
BOOTSTRAP = "mds, with 200 bootstrap weights"


def made() -> dict[str, Metric]:
    """Return every installed metric, and the modality metric without and with its bootstrap."""
    found: dict[str, Metric] = {p.name: m for p, m in registry.made("metrics", Metric) if p.name not in LEFT_OUT}
    return {**found, "mds": ModalityMetric(0), BOOTSTRAP: ModalityMetric()}


def batch_of(number: int, options: Namespace) -> Batch:
    """Return a batch of sparse codes with heavy-tailed firing, with activations and judge embeddings."""
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
    """Return a copy of the batch without cached values."""
    return replace(batch, codes=PairedCodes(batch.codes.ids, batch.codes.image, batch.codes.text))


def held(metric: Metric) -> int:
    """Return the bytes of a metric's state."""
    return sum(t.numel() * t.element_size() for t in metric.state().values())


def main() -> None:
    with bench(__file__, __doc__, d_in=512, d_sae=4096, k=32, batch=1024, batches=8, rounds=12) as b:
        options = b.args
        encoder = torch.randn(options.d_in, options.d_sae)
        alone, together, booted = made(), made(), made()
        del together[BOOTSTRAP], booted["mds"]
        totals = {
            "all streamed metrics but the bootstrap": (together, "0.5x"),
            "the same with 200 bootstrap weights": (booted, "1.5x"),
        }
        encode: list[float] = []
        spent: dict[str, list[float]] = {name: [] for name in (*alone, *totals)}
        order = list(alone)
        for number in range(options.rounds):
            batches = [batch_of(number * options.batches + n, options) for n in range(options.batches)]
            encode.append(timed(lambda bs=batches: [(x.acts.image @ encoder, x.acts.text @ encoder) for x in bs]))
            random.Random(number).shuffle(order)
            for name in order:
                shown = [fresh(x) for x in batches]
                spent[name].append(timed(lambda n=name, bs=shown: [alone[n].update(x) for x in bs]))
            for name, (metrics, _) in totals.items():
                shown = [fresh(x) for x in batches]
                spent[name].append(timed(lambda ms=metrics, bs=shown: [m.update(x) for x in bs for m in ms.values()]))
        b.note("encode product of both modalities, ms per batch", median(encode) / options.batches * 1e3, ".1f")
        b.table(
            f"Cost per batch of {options.batch} pairs against the encode product, "
            f"d_in {options.d_in} (judge too), d_sae {options.d_sae}, k {options.k}",
            {"metric": "", "ratio": ".2f", "reach": ""},
        )
        for name, taken in spent.items():
            b.row(name, ratio(taken, encode), totals[name][1] if name in totals else "")
        sizes = {name: held(metric) for name, metric in alone.items()}
        seen = options.rounds * options.batches
        for number in range(seen, 2 * seen):
            batch = batch_of(number, options)
            for metric in alone.values():
                metric.update(batch)
        b.table(
            f"Memory held after {seen * options.batch} pairs and after as many again",
            {"metric": "", "MB": ".1f", "MB after twice as many": ".1f", "growth": "+.1%"},
        )
        for name, metric in alone.items():
            b.row(name, sizes[name] / 1e6, held(metric) / 1e6, held(metric) / sizes[name] - 1 if sizes[name] else 0.0)


if __name__ == "__main__":
    main()
