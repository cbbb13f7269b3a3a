"""Compute the figures of docs/scale.md: bytes and hours of a harvest of CC3M, CC12M and LAION-400M.

    python benchmarks/scale.py [--teraflops 150]

The only measurement is the repeated decoding of one JPEG of 640 x 480, for the number of images that a core prepares.
"""

import io
import time

import numpy as np
import open_clip
from PIL import Image

from _bench import Bench, bench
from cliplens.pairs import open_image
from cliplens.records import Pair
from cliplens.store.arrow import ShardSchema

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
"""Layers, width and positions of the vision and the text tower."""


def bytes_per_pair(sites: tuple[tuple[int, int, bool], ...]) -> int:
    return PAIR_BYTES + sum(
        ShardSchema("hook", context, width, "float16", ids).bytes_per_pair for context, width, ids in sites
    )


def flop(layers: int, width: int, positions: int) -> float:
    """Return the FLOP of a forward: 12 width^2 multiply-adds per position and layer, and two attention products."""
    return 2 * layers * positions * (12 * width**2 + 2 * positions * width)


def size(count: float) -> str:
    unit, power = next((u, p) for u, p in (("TB", 1e12), ("GB", 1e9), ("kB", 1e3)) if count >= p)
    return f"{count / power:.1f} {unit}" if count / power < 10 else f"{count / power:.0f} {unit}"


def main() -> None:
    with bench(__file__, __doc__, teraflops=(150.0, "what the accelerator sustains")) as b:
        sizes(b)
        b.note("JPEGs of 640 x 480 prepared per second by one core, for 224 x 224", decoded_per_second(), ".0f")


def sizes(b: Bench) -> None:
    heads = [f"{name}, {count / 1e6:.3g} M" for name, count in SETS.items()]
    b.table("One site of each tower of ViT-L/14", ["sites", "per pair", *heads])
    for name, sites in CHOICES.items():
        each = bytes_per_pair(sites)
        b.row(name, size(each), *(size(each * count) for count in SETS.values()))
    b.table(
        f"Hours at {b.args.teraflops:g} TFLOP/s",
        {"model": "", "GFLOP per pair": ".1f", "pairs/s": ",.0f", **dict.fromkeys(SETS, ".1f")},
    )
    for name, towers in TOWERS.items():
        cost = sum(flop(*tower) for tower in towers)
        rate = b.args.teraflops * 1e12 / cost
        b.row(name, cost / 1e9, rate, *(count / rate / 3600 for count in SETS.values()))


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
