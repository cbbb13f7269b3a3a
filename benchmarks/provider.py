"""How fast are shuffled batches, against SAELens' mixing buffer and against a bare gather?

    python benchmarks/provider.py [--rounds 7] [--rows 51200] [--width 768] [--batch 4096] [--device cpu]

All three are fed the same activations from memory, as a model would give them: `prompts` images of 50 positions at a
time. Rounds run in random order in one process; the table gives tokens per second (median) and, against each rival, the
median of the paired ratios with the middle half of them. `cache` reads the same rows in float16 from disk.
"""

import argparse
import platform
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from sae_lens.training.mixing_buffer import mixing_buffer
from torch import Tensor

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


class Chunks(RowSource):
    """Activations as they come from a model, chunk after chunk, from memory."""

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
    """The least a shuffling buffer can do: fill memory that is there, permute, gather."""
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
    """The chunks as a cache, one pair per position, float16."""
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
    """Tokens per second of the clock and of the processor, all threads, after the first batch fills the buffer."""
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--rows", type=int, default=51200)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--prompts", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(1)
    where = torch.cuda.get_device_name() if args.device == "cuda" else platform.processor() or platform.machine()
    print(f"{where}, 1 thread, torch {version('torch')}, sae-lens {version('sae-lens')}")
    print(f"{args.rows} rows of {args.width} buffered, batches of {args.batch}, {args.rounds} rounds in random order\n")
    print("| fed by | way | tokens/s | ours is, times it (middle half) | by processor time |")
    print("|---|---|---|---|---|")
    for prompts in args.prompts:
        compare(args, prompts)


def compare(args: argparse.Namespace, prompts: int) -> None:
    generator = torch.Generator().manual_seed(0)
    count = -(-2 * args.rows // (prompts * POSITIONS))
    chunks = [torch.randn(prompts * POSITIONS, args.width, generator=generator).to(args.device) for _ in range(count)]
    with tempfile.TemporaryDirectory() as folder:
        cache = cache_of(chunks, Path(folder) / "cache")
        common = {"batch_size": args.batch, "buffer_rows": args.rows, "device": args.device}
        ways: dict[str, Callable[[], Iterator[Tensor]]] = {
            "cliplens Provider": lambda: Provider(Chunks(chunks), **common),
            "cliplens Provider over a float16 cache": lambda: Provider.from_cache(
                cache, image=SITE, centre=False, **common
            ),
            "bare preallocated gather": lambda: bare_gather(chunks, args.rows, args.batch),
            "SAELens mixing_buffer": lambda: mixing_buffer(args.rows, args.batch, endless(chunks)),
        }
        rates: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        shuffler = random.Random(0)
        for _ in range(args.rounds):
            for name in shuffler.sample(list(ways), len(ways)):
                rates[name].append(rates_of(ways[name](), args.rows * (1 if "SAELens" in name else 16)))
        ours = np.array(rates["cliplens Provider"])
        for name, found in rates.items():
            clock = np.median(np.array(found)[:, 0])
            ratios = [quantiles(r) for r in (ours / np.array(found)).T]
            print(f"| {prompts} images | {name} | {clock:,.0f} | {ratios[0]} | {ratios[1]} |")


def quantiles(ratios: np.ndarray) -> str:
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


if __name__ == "__main__":
    main()
