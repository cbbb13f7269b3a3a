"""Is the memory of a harvest independent of the number of pairs?

    python benchmarks/harvest_memory.py [--pairs 5000 20000]

Prints the peak resident memory of harvests of the embedded world, each in a new process.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import torch

import cliplens
from _bench import bench, peak_memory
from cliplens.sites import Site, sites_of
from cliplens.store import harvest


def main() -> None:
    with bench(__file__, __doc__, pairs=[5000, 20000]) as b:
        b.table("Harvest of the embedded world", {"pairs": ",d", "peak, MiB": ".0f", "times the first": ".3f"})
        peaks: list[float] = []
        for count in b.args.pairs:
            code = f"from harvest_memory import print_peak; print_peak({count})"
            done = subprocess.run(
                [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=Path(__file__).parent
            )
            peaks.append(float(done.stdout.split()[-1]))
            b.row(count, peaks[-1], peaks[-1] / peaks[0])


def print_peak(count: int) -> None:
    """Harvest in this process and print its peak memory in MiB."""
    torch.set_num_threads(1)
    clip = cliplens.load("world", device="cpu")
    pairs = cliplens.read_pairs(f"world:{count}")
    with tempfile.TemporaryDirectory() as folder:
        sites = [*sites_of("hook_embedding"), Site("vision", "blocks.1.hook_resid_post")]
        harvest(clip, pairs, sites, Path(folder) / "cache", forward_batch=256, shard_pairs=1024)
    print(peak_memory())


if __name__ == "__main__":
    main()
