"""Is the memory of a harvest independent of the number of pairs? How do time and memory grow with the number of hooks?

    python benchmarks/harvest_memory.py [--pairs 5000 20000] [--hooks 1 4 16] [--hook-pairs 5000]

Prints the peak resident memory of harvests of the embedded world, each in a new process: for several numbers of pairs,
then for several numbers of hooks in the blocks of both towers, read at all patches and tokens in one pass.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

import cliplens
from _bench import bench, peak_memory
from cliplens.sites import SIDES, Site, sites_of
from cliplens.store import harvest

INNER = ("hook_resid_post", "hook_mlp_out", "hook_attn_out", "hook_resid_mid")


def main() -> None:
    """Print a row per number of pairs, and one per number of hooks."""
    with bench(__file__, __doc__, pairs=[5000, 20000], hooks=[1, 4, 16], hook_pairs=5000) as b:
        b.table("Harvest of the embedded world", {"pairs": ",d", "peak, MiB": ".0f", "times the first": ".3f"})
        peaks: list[float] = []
        for count in b.args.pairs:
            peaks.append(used(f"print_peak({count})")[0])
            b.row(count, peaks[-1], peaks[-1] / peaks[0])
        b.table(
            f"Harvest of {b.args.hook_pairs:,} pairs of the embedded world at all patches and tokens",
            {"hooks": "d", "CPU s": ".1f", "peak, MiB": ".0f", "MB on disk": ".0f", "CPU ms a hook and pair": ".3f"},
        )
        for count in b.args.hooks:
            peak, seconds, size = used(f"print_hooks({count}, {b.args.hook_pairs})")
            b.row(count, seconds, peak, size / 1e6, 1e3 * seconds / count / b.args.hook_pairs)


def used(call: str) -> tuple[float, ...]:
    """Run a function of this file in a new process; return the numbers it prints."""
    code = f"from harvest_memory import *; {call}"
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=Path(__file__).parent
    )
    return tuple(map(float, done.stdout.split()))


def print_peak(count: int) -> None:
    """Harvest in this process and print its peak memory in MiB."""
    torch.set_num_threads(1)
    clip = cliplens.load("world", device="cpu")
    pairs = cliplens.read_pairs(f"world:{count}")
    with tempfile.TemporaryDirectory() as folder:
        sites = [*sites_of("hook_embedding"), Site("vision", "blocks.1.hook_resid_post")]
        harvest(clip, pairs, sites, Path(folder) / "cache", forward_batch=256, shard_pairs=1024)
    print(peak_memory())


def print_hooks(hooks: int, count: int) -> None:
    """Harvest hooks in this process; print its peak memory in MiB, the CPU seconds of the harvest, and its bytes."""
    torch.set_num_threads(1)
    clip = cliplens.load("world", device="cpu")
    pairs = cliplens.read_pairs(f"world:{count}")
    layers = min(tower.cfg.n_layers for tower in (clip.vision, clip.text) if tower is not None)
    places = [f"blocks.{layer}.{name}" for name in INNER for layer in reversed(range(layers))]
    sites = [Site(side, place) for place in places for side in SIDES][:hooks]
    if len(sites) < hooks:
        raise SystemExit(f"Expected at most {len(sites)} hooks, but found {hooks}. Fix: ask for fewer.")
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder) / "cache"
        started = time.process_time()
        harvest(clip, pairs, sites, cache, token="all", forward_batch=256, shard_pairs=1024)
        seconds = time.process_time() - started
        size = sum(path.stat().st_size for path in cache.rglob("*") if path.is_file())
    print(peak_memory(), seconds, size)


if __name__ == "__main__":
    main()
