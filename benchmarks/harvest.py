"""Time a harvest to disk against the two forward passes alone.

    python benchmarks/harvest.py [--model ViT-B-32] [--pairs 128] [--batch 32] [--rounds 5] [--device cuda]

The weights are random. Each round runs all cases in random order; the table gives the median of the paired ratios with
its 95 % interval. The forwards alone get prepared images and tokens; the harvest also decodes, tokenises, casts, hashes
and writes. See also `harvest_memory.py`, `harvest_compile.py` and `harvest_emoji.py`.
"""

import hashlib
import random
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import open_clip
import torch
from PIL import Image
from torch import Tensor, nn

import cliplens
from _bench import bench, ratio
from cliplens.hooked import HookedCLIP
from cliplens.pairs import ImageColumn, Pairs
from cliplens.sites import Site, sites_of
from cliplens.store import harvest

WORDS = ("a", "photo", "of", "the", "small", "red", "dog", "on", "green", "grass", "near", "an", "old", "house")


class Noise(ImageColumn):
    """Random images in memory, at the input size of the model."""

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
    """Return the seconds of the stock towers alone."""
    start = time.perf_counter()
    for i in range(0, len(images), batch):
        model.encode_image(images[i : i + batch].to(device))
        model.encode_text(tokens[i : i + batch].to(device))
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def harvested(clip: HookedCLIP, pairs: Pairs, sites: list[Site], batch: int) -> float:
    """Return the seconds of the harvest of the same pairs to disk."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        harvest(clip, pairs, sites, Path(folder) / "cache", forward_batch=batch)
        return time.perf_counter() - start


def main() -> None:
    with bench(__file__, __doc__, model="ViT-B-32", pairs=128, batch=32, rounds=5) as b:
        args = b.args
        clip = random_clip(args.model, args.device)
        pairs = noise_pairs(clip, args.pairs)
        images = torch.stack([clip.preprocess(p.image) for p in pairs])
        tokens = clip.tokenizer(pairs.captions)
        last = clip.vision.cfg.n_layers - 1
        embedding = sites_of("hook_embedding")
        ways = {
            "hook_embedding of both towers": embedding,
            "and the last residual of both": (*embedding, *sites_of(f"blocks.{last}.hook_resid_post")),
        }
        alone = "the two forwards alone"
        seconds: dict[str, list[float]] = {name: [] for name in (alone, *ways)}
        forwards(clip.model, images[: args.batch], tokens[: args.batch], args.batch, args.device)
        draw = random.Random(0)
        for _ in range(args.rounds):
            for name in draw.sample(list(seconds), len(seconds)):
                if name == alone:
                    seconds[name].append(forwards(clip.model, images, tokens, args.batch, args.device))
                else:
                    seconds[name].append(harvested(clip, pairs, list(ways[name]), args.batch))
        b.table(
            f"Harvest to disk in float16: {args.model}, random weights, {args.pairs} pairs in batches of {args.batch}",
            {"way": "", "seconds": ".2f", "times the two forwards alone": ".3f"},
        )
        for name, taken in seconds.items():
            b.row(name, median(taken), ratio(taken, seconds[alone]))


if __name__ == "__main__":
    main()
