"""What does a harvest to disk cost over the two forwards alone, in time and in memory?

    python benchmarks/harvest.py time [--model ViT-B-32] [--pairs 128] [--rounds 5] [--device cpu]
    python benchmarks/harvest.py memory [--pairs 5000 20000]
    python benchmarks/harvest.py compile [--model ViT-B-32] [--batch 32] [--rounds 9] [--device cpu]
    python benchmarks/harvest.py emoji --data FOLDER [--pairs 2000]

`time`: random weights; the rounds take both ways in random order; median of the paired ratios with the middle half.
The forwards alone get images and tokens that are ready; the harvest decodes, tokenises, casts, hashes and writes.
`memory`: peak resident memory of a harvest of the embedded world, each in a fresh process.
`compile`: reading one batch as the model stands and through torch.compile; the rounds take both in random order.
`emoji`: pairs of noto_emoji through the embedded model, live and cached.
"""

import argparse
import hashlib
import os
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import open_clip
import torch
from PIL import Image
from torch import Tensor, nn

import cliplens
from cliplens.hooked import HookedCLIP
from cliplens.pairs import Decoded, ImageColumn, Pairs
from cliplens.sites import Site, sites_of
from cliplens.store import Provider, harvest
from cliplens.stream import SiteReader

WORDS = ("a", "photo", "of", "the", "small", "red", "dog", "on", "green", "grass", "near", "an", "old", "house")


class Noise(ImageColumn):
    """Images in memory at the model's own size."""

    def __init__(self, count: int, size: int) -> None:
        self.array = np.random.default_rng(0).integers(0, 255, (count, size, size, 3), dtype=np.uint8)

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, index: int) -> Image.Image:  # type: ignore[override]
        return Image.fromarray(self.array[index])

    def pixels(self, rows: np.ndarray) -> np.ndarray:
        return self.array[rows]

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.array.tobytes()).hexdigest()


def random_clip(name: str, device: str) -> HookedCLIP:
    torch.manual_seed(0)
    model, _, preprocess = open_clip.create_model_and_transforms(name, pretrained=None)
    model = model.eval().to(device)
    return cliplens.wrap(model, preprocess=preprocess, tokenizer=open_clip.get_tokenizer(name))


def noise_pairs(clip: HookedCLIP, count: int) -> Pairs:
    draw = random.Random(0)
    captions = [" ".join(draw.choices(WORDS, k=draw.randint(5, 18))) for _ in range(count)]
    return Pairs([f"p{i}" for i in range(count)], Noise(count, clip.vision.cfg.image_size[0]), captions, name="noise")


@torch.no_grad()
def forwards(model: nn.Module, images: Tensor, tokens: Tensor, batch: int, device: str) -> float:
    """Seconds of the stock towers alone."""
    start = time.perf_counter()
    for i in range(0, len(images), batch):
        model.encode_image(images[i : i + batch].to(device))
        model.encode_text(tokens[i : i + batch].to(device))
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def harvested(clip: HookedCLIP, pairs: Pairs, sites: list[Site], batch: int) -> float:
    """Seconds of the harvest of the same pairs to disk."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        harvest(clip, pairs, sites, Path(folder) / "cache", batch_size=batch)
        return time.perf_counter() - start


def quantiles(ratios: np.ndarray) -> str:
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    return f"{middle:.3f} ({low:.3f} to {high:.3f})"


def machine(device: str = "cpu") -> None:
    where = torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine()
    versions = f"torch {version('torch')}, open_clip {version('open_clip_torch')}"
    print(f"{where}, {torch.get_num_threads()} thread(s), {versions}")


def measure_time(args: argparse.Namespace) -> None:
    clip = random_clip(args.model, args.device)
    pairs = noise_pairs(clip, args.pairs)
    images = torch.stack([clip.preprocess(p.image) for p in pairs])
    tokens = clip.tokenizer(pairs.captions)
    last = clip.vision.cfg.n_layers - 1
    ways = {
        "hook_embedding of both towers": sites_of("hook_embedding"),
        "and the last residual of both": (*sites_of("hook_embedding"), *sites_of(f"blocks.{last}.hook_resid_post")),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ("forwards", *ways)}
    forwards(clip.model, images[: args.batch], tokens[: args.batch], args.batch, args.device)
    draw = random.Random(0)
    for _ in range(args.rounds):
        for name in draw.sample(list(seconds), len(seconds)):
            if name == "forwards":
                seconds[name].append(forwards(clip.model, images, tokens, args.batch, args.device))
            else:
                seconds[name].append(harvested(clip, pairs, list(ways[name]), args.batch))
    machine(args.device)
    print(f"{args.model}, random weights, {args.pairs} pairs in batches of {args.batch}, {args.rounds} rounds\n")
    print("| harvest to disk, float16 | seconds | times the two forwards alone (middle half) |")
    print("|---|---|---|")
    alone = np.array(seconds["forwards"])
    print(f"| the two forwards alone | {np.median(alone):.2f} | 1 |")
    for name in ways:
        print(f"| {name} | {np.median(seconds[name]):.2f} | {quantiles(np.array(seconds[name]) / alone)} |")


def measure_memory(args: argparse.Namespace) -> None:
    machine()
    print("\n| pairs of the world | peak resident memory | times the first |\n|---|---|---|")
    first = None
    for count in args.pairs:
        said = subprocess.run(
            [sys.executable, __file__, "one", "--pairs", str(count)], check=True, capture_output=True, text=True
        )
        peak = int(said.stdout.split()[-1])
        first = first or peak
        print(f"| {count:,} | {peak / 1024:.0f} MiB | {peak / first:.3f} |")


def one(args: argparse.Namespace) -> None:
    """A harvest of the world in this process; prints its peak memory in KiB."""
    torch.set_num_threads(1)
    clip = cliplens.load("world", device="cpu")
    pairs = cliplens.read_pairs(f"world:{args.pairs[0]}")
    with tempfile.TemporaryDirectory() as folder:
        out = args.out or Path(folder) / "cache"
        sites = [*sites_of("hook_embedding"), Site("vision", "blocks.1.hook_resid_post")]
        harvest(clip, pairs, sites, out, batch_size=256, shard_pairs=1024)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def measure_compile(args: argparse.Namespace) -> None:
    clip = random_clip(args.model, args.device)
    last = clip.vision.cfg.n_layers - 1
    asked = {
        "hook_embedding of both towers": sites_of("hook_embedding"),
        "the last residual of both": sites_of(f"blocks.{min(last, clip.text.cfg.n_layers - 1)}.hook_resid_post"),
    }
    machine(args.device)
    print(f"{args.model}, random weights, batches of {args.batch}, {args.rounds} rounds\n")
    print("| reading through torch.compile | to compile, s | times as fast (middle half) | largest difference |")
    print("|---|---|---|---|")
    for name, sites in asked.items():
        plain, compiled = SiteReader(clip, sites), SiteReader(clip, sites, compiled=args.batch)
        decoded = plain.decoder(noise_pairs(clip, args.batch))[np.arange(args.batch)]
        first = read_once(compiled, decoded, args.device)
        read_once(plain, decoded, args.device)
        seconds: dict[SiteReader, list[float]] = {plain: [], compiled: []}
        draw = random.Random(0)
        for _ in range(args.rounds):
            for reader in draw.sample([plain, compiled], 2):
                seconds[reader].append(read_once(reader, decoded, args.device))
        a, b = (reader.read(decoded).sites for reader in (plain, compiled))
        off = max(float((a[s].acts - b[s].acts).abs().max()) for s in sites)
        ratios = np.array(seconds[plain]) / np.array(seconds[compiled])
        print(f"| {name} | {first:.0f} | {quantiles(ratios)} | {off:.1e} |")


def read_once(reader: SiteReader, decoded: Decoded, device: str) -> float:
    """Seconds of reading one batch."""
    start = time.perf_counter()
    reader.read(decoded)
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def measure_emoji(args: argparse.Namespace) -> None:
    table = args.data / "noto_emoji" / "emoji.csv"
    pairs = cliplens.read_pairs(table, image_column="file", caption_column="name", image_root=table.parent / "images")[
        : args.pairs[0]
    ]
    clip = cliplens.load("world", device="cpu")
    machine()
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        cache = harvest(clip, pairs, sites_of("hook_embedding"), Path(folder) / "cache", batch_size=256)
        first = time.perf_counter() - start
        start = time.perf_counter()
        harvest(clip, pairs, sites_of("hook_embedding"), Path(folder) / "cache", batch_size=256)
        again = time.perf_counter() - start
        image, text = sites_of("hook_embedding")
        start = time.perf_counter()
        live = cliplens.activations(clip, pairs, batch_size=512)
        next(live)
        lived = time.perf_counter() - start
        start = time.perf_counter()
        cached = Provider.from_cache(cache, image=image, text=text, batch_size=512)
        next(cached)
        read = time.perf_counter() - start
        print(f"\n{len(cache)} emoji kept, {cache.quarantined} bad, {cache.truncated} captions cut\n")
        print("| what | seconds |\n|---|---|")
        for name, seconds in (
            ("harvest", first),
            ("the same again: hashes verified, nothing to do", again),
            ("first batch, live", lived),
            ("first batch, from the cache", read),
        ):
            print(f"| {name} | {seconds:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["time", "memory", "compile", "emoji", "one"])
    parser.add_argument("--model", default="ViT-B-32")
    parser.add_argument("--pairs", type=int, nargs="+", default=None)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=None)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("CLIPLENS_DATA", "data")))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    defaults = {"time": [128], "memory": [5000, 20000], "compile": [32], "emoji": [2000], "one": [1000]}
    args.pairs = args.pairs or defaults[args.what]
    args.rounds = args.rounds or {"time": 5, "compile": 9}.get(args.what, 1)
    if args.what == "time":
        args.pairs = args.pairs[0]
    {
        "time": measure_time,
        "memory": measure_memory,
        "compile": measure_compile,
        "emoji": measure_emoji,
        "one": one,
    }[args.what](args)


if __name__ == "__main__":
    main()
