"""How fast are shuffled batches, compared with SAELens' mixing buffer and with a bare gather?

    python benchmarks/provider.py [--rounds 7] [--rows 51200] [--width 768] [--batch 4096] [--device cpu]

All three get the same activations from memory, `prompts` images of 50 positions at a time, as from a model. Rounds run
in random order in one process. The table gives tokens per second (median) and, for each other method, the median of the
paired ratios with its 95 % interval. The cache holds the same rows in float16 on disk.
"""

import random
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import numpy as np
import torch
from sae_lens.training.mixing_buffer import mixing_buffer
from torch import Tensor

from _bench import Bench, bench, ratio
from cliplens.records import ModelIdentity
from cliplens.sites import Site
from cliplens.store import Cache, Provider
from cliplens.store.arrow import ShardSchema
from cliplens.store.manifest import write_plan, write_totals
from cliplens.store.plan import Plan, SitePlan
from cliplens.store.shard_writer import ShardWriter
from cliplens.store.sources import Chunk, RowSource

POSITIONS = 50
SITE = Site("vision", "hook_resid")
OURS = "cliplens Provider"


class Chunks(RowSource):
    """Activations in memory, chunk by chunk, as from a model."""

    modalities = ("image",)

    def __init__(self, chunks: list[Tensor]) -> None:
        self.chunks, self.d_in = chunks, chunks[0].shape[1]

    @property
    def sizes(self) -> np.ndarray:
        return np.array([len(c) for c in self.chunks])

    def read(self, units: np.ndarray) -> Iterator[Chunk]:
        for unit in units.tolist():
            yield {"image": self.chunks[unit]}


def endless(chunks: list[Tensor]) -> Iterator[Tensor]:
    while True:
        yield from chunks


def bare_gather(chunks: list[Tensor], rows: int, batch: int) -> Iterator[Tensor]:
    """Yield batches of the simplest shuffling buffer: fill allocated memory, permute, gather."""
    buffer = torch.empty(rows, chunks[0].shape[1], device=chunks[0].device)
    coming = endless(chunks)
    while True:
        used = 0
        while used < rows:
            chunk = next(coming)[: rows - used]
            buffer[used : used + len(chunk)] = chunk
            used += len(chunk)
        order = torch.randperm(rows, device=buffer.device)
        for start in range(0, rows - batch + 1, batch):
            yield buffer.index_select(0, order[start : start + batch])


def cache_of(chunks: list[Tensor], folder: Path) -> Cache:
    """Return the chunks as a cache in float16, with one pair per position."""
    width, rows = chunks[0].shape[1], sum(len(c) for c in chunks)
    form = ShardSchema(SITE.hook, 1, width, "float16", token_ids=False)
    identity = ModelIdentity("none", None, "", "", "", "")
    plan = Plan(
        identity, "benchmark", "", rows, (SitePlan(SITE, form, "single"),), "auto", "float16", "", 4096, 8192, "none", 0
    )
    folder.mkdir(parents=True)
    write_plan(folder, plan, None)
    values = torch.cat(chunks).cpu().to(torch.float16).numpy()[:, None]
    for shard in plan.names:
        draft = ShardWriter(folder, plan, shard)
        places = plan.indices(shard)
        draft.write(places, [f"p{p}" for p in places.tolist()], {SITE: (values[places], None)}, None)
        draft.commit()
    write_totals(folder, plan)
    return Cache.open(folder)


def rates_of(batches: Iterator[Tensor], tokens: int) -> tuple[float, float]:
    """Return tokens per second of wall time and of CPU time of all threads, after the first batch."""
    next(batches)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start, spent, given = time.perf_counter(), time.process_time(), 0
    while given < tokens:
        given += len(next(batches))
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return given / (time.perf_counter() - start), given / (time.process_time() - spent)


def main() -> None:
    with bench(__file__, __doc__, rounds=7, rows=51200, width=768, batch=4096, prompts=[8, 32]) as b:
        for prompts in b.args.prompts:
            compare(b, prompts)


def compare(b: Bench, prompts: int) -> None:
    args = b.args
    generator = torch.Generator().manual_seed(0)
    count = -(-2 * args.rows // (prompts * POSITIONS))
    chunks = [torch.randn(prompts * POSITIONS, args.width, generator=generator).to(args.device) for _ in range(count)]
    with tempfile.TemporaryDirectory() as folder:
        cache = cache_of(chunks, Path(folder) / "cache")
        common = {"batch_size": args.batch, "buffer_rows": args.rows, "device": args.device}
        ways: dict[str, Callable[[], Iterator[Tensor]]] = {
            OURS: lambda: Provider(Chunks(chunks), **common),
            f"{OURS} over a float16 cache": lambda: Provider.from_cache(cache, image=SITE, centre=False, **common),
            "bare preallocated gather": lambda: bare_gather(chunks, args.rows, args.batch),
            "SAELens mixing_buffer": lambda: mixing_buffer(args.rows, args.batch, endless(chunks)),
        }
        rates: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        shuffler = random.Random(0)
        for _ in range(args.rounds):
            for name in shuffler.sample(list(ways), len(ways)):
                rates[name].append(rates_of(ways[name](), args.rows * (1 if "SAELens" in name else 16)))
    b.table(
        f"{args.rows} rows of {args.width} buffered, batches of {args.batch}, fed by {prompts} images at a time",
        {"way": "", "tokens/s": ",.0f", f"{OURS} is, times it": ".2f", "by processor time": ".2f"},
    )
    clock, processor = zip(*rates[OURS], strict=True)
    for name, found in rates.items():
        own_clock, own_processor = zip(*found, strict=True)
        b.row(name, median(own_clock), ratio(clock, own_clock), ratio(processor, own_processor))


if __name__ == "__main__":
    main()
