"""The arithmetic of docs/scale.md: bytes and hours of a harvest of CC3M, CC12M and LAION-400M.

    python benchmarks/scale.py [--teraflops 150]
    python benchmarks/scale.py list [--pairs 3000000]

Nothing is run but the decoding of one JPEG of 640 x 480, again and again, to say how many images a core prepares.
`list`: what the list of pairs takes in memory and how long it takes to read, each source in a fresh process (Linux).
"""

import argparse
import io
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import datasets
import numpy as np
import open_clip
from PIL import Image

from cliplens.pairs import open_image, read_pairs
from cliplens.records import Pair
from cliplens.store.arrow import ShardSchema
from cliplens.store.memory import trim_memory

SETS = {"CC3M": 3.3e6, "CC12M": 12.4e6, "LAION-400M": 407e6}
PAIR_BYTES = 64
CHOICES: dict[str, tuple[tuple[int, int, bool], ...]] = {
    "`hook_embedding` (768 and 768, one position)": ((1, 768, False), (1, 768, False)),
    "a residual, CLS and EOT (1024 and 768)": ((1, 1024, False), (1, 768, False)),
    "a residual, image patches only": ((256, 1024, True),),
    "a residual, all positions of both": ((257, 1024, True), (77, 768, True)),
}
"""context_size, d_in, token ids."""
TOWERS = {"ViT-B/32": ((12, 768, 50), (12, 512, 77)), "ViT-L/14": ((24, 1024, 257), (12, 768, 77))}
"""Layers, width, positions of the vision and the text tower."""


def bytes_per_pair(sites: tuple[tuple[int, int, bool], ...]) -> int:
    return PAIR_BYTES + sum(
        ShardSchema("hook", context, width, "float16", ids).bytes_per_pair for context, width, ids in sites
    )


def flop(layers: int, width: int, positions: int) -> float:
    """A forward: 12 width^2 multiply-adds per position and layer, and the two products of attention."""
    return 2 * layers * positions * (12 * width**2 + 2 * positions * width)


def size(count: float) -> str:
    unit, power = next((u, p) for u, p in (("TB", 1e12), ("GB", 1e9), ("kB", 1e3)) if count >= p)
    return f"{count / power:.1f} {unit}" if count / power < 10 else f"{count / power:.0f} {unit}"


def captions(count: int) -> Iterator[str]:
    """Captions of some 50 letters, all different."""
    return (f"a photo of the small red dog number {i} on green grass" for i in range(count))


def csv_table(folder: Path, count: int) -> Path:
    with (folder / "set.csv").open("w") as file:
        file.write("image,caption\n")
        file.writelines(f"{i // 1000:05d}/{i:09d}.jpg,{said}\n" for i, said in enumerate(captions(count)))
    return folder / "set.csv"


def saved_dataset(folder: Path, count: int) -> Path:
    names = [f"{i // 1000:05d}/{i:09d}.jpg" for i in range(count)]
    made = datasets.Dataset.from_dict({"image": names, "id": names, "caption": list(captions(count))})
    made.save_to_disk(folder / "saved")
    return folder / "saved"


def tar_shard(folder: Path, count: int) -> Path:
    with tarfile.open(folder / "set.tar", "w") as tar:
        for i, said in enumerate(captions(count)):
            for ending, content in (("jpg", b"."), ("txt", said.encode())):
                member = tarfile.TarInfo(f"{i:09d}.{ending}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return folder / "set.tar"


SOURCES = {
    "a CSV table": (csv_table, 1),
    "a `datasets` folder, mapped": (saved_dataset, 1),
    "tar shards": (tar_shard, 10),
}
"""How each is written, and by how many fewer pairs: tars are slow to read."""


def measure_list(count: int) -> None:
    datasets.disable_progress_bars()
    print(
        "| pairs of | pairs | text, bytes a pair | held in memory, bytes a pair | at the peak | read, s | hashed, s |"
    )
    print("|---|---|---|---|---|---|---|")
    for name, (write, fewer) in SOURCES.items():
        with tempfile.TemporaryDirectory() as folder:
            (few := Path(folder, "few")).mkdir()
            paths = [str(write(few, 10)), str(write(Path(folder), count // fewer))]
            command = [sys.executable, __file__, "one", "--paths", *paths]
            said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        print(f"| {name} | {count // fewer:,} | {' | '.join(said.split())} |")


def one_list(few: str, path: str) -> None:
    """Read pairs in this process, a few first so that all modules are loaded; prints the cells of the table."""
    read_pairs(few)
    before, start = memory("RssAnon"), time.perf_counter()
    pairs = read_pairs(path)
    read = time.perf_counter() - start
    held, peak = memory("RssAnon") - before, memory("VmHWM") - memory("RssFile") - before
    start = time.perf_counter()
    assert pairs.sha256
    hashed = time.perf_counter() - start
    text = len(pairs) * (len(pairs.id_at(0)) + len(pairs.caption_at(0) or ""))
    print(*(f"{bytes_ / len(pairs):.0f}" for bytes_ in (text, held, peak)), f"{read:.1f} {hashed:.1f}")


def memory(kind: str) -> int:
    """Bytes of this process: RssAnon is no mapped file, VmHWM the most there ever was of both."""
    trim_memory()
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[kind].split()[0]) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["sizes", "list", "one"], default="sizes")
    parser.add_argument("--teraflops", type=float, default=150, help="What the accelerator sustains.")
    parser.add_argument("--pairs", type=int, default=3_000_000)
    parser.add_argument("--paths", nargs=2)
    args = parser.parse_args()
    if args.what == "list":
        measure_list(args.pairs)
    elif args.what == "one":
        one_list(*args.paths)
    else:
        sizes(args)


def sizes(args: argparse.Namespace) -> None:
    heads = " | ".join(f"{name}, {count / 1e6:.3g} M" for name, count in SETS.items())
    print(f"| one site of each tower of ViT-L/14 | per pair | {heads} |")
    print("|---|---|---|---|---|")
    for name, sites in CHOICES.items():
        each = bytes_per_pair(sites)
        print(f"| {name} | {size(each)} | " + " | ".join(size(each * count) for count in SETS.values()) + " |")
    print(f"\n| hours at {args.teraflops:g} TFLOP/s | GFLOP per pair | pairs/s | " + " | ".join(SETS) + " |")
    print("|---|---|---|---|---|---|")
    for name, towers in TOWERS.items():
        cost = sum(flop(*tower) for tower in towers)
        rate = args.teraflops * 1e12 / cost
        hours = " | ".join(f"{count / rate / 3600:.1f}" for count in SETS.values())
        print(f"| {name} | {cost / 1e9:.1f} | {rate:,.0f} | {hours} |")
    print(f"\none core here prepares {decoded_per_second():.0f} JPEGs of 640 x 480 per second for a model of 224 x 224")


def decoded_per_second() -> float:
    smooth = np.random.default_rng(0).normal(128, 40, (12, 16, 3)).clip(0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(smooth).resize((640, 480), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    preprocess = open_clip.image_transform(224, is_train=False)
    start, count = time.process_time(), 0
    while time.process_time() - start < 2:
        preprocess(open_image(Pair("a", file.getvalue(), None)))
        count += 1
    return count / (time.process_time() - start)


if __name__ == "__main__":
    main()
