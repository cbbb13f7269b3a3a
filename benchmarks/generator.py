"""How well the embedded generator draws what an embedding holds, read by an independent network.

    python benchmarks/generator.py [--pictures 512] [--judge FILE]

Prints the table of docs/generator.md. The judge is trained on pictures of the world first (about two minutes), or read
from FILE. Scenes come from a seed neither the model, nor the generator, nor the judge has seen.
"""

import argparse
import platform
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import cliplens
from cliplens.world import SHARED, Scenes, captions, draw_scenes, render
from cliplens_plugins.generators import WorldFactorReader, WorldGenerator, load_factor_reader

SEED = 700_000
FACTORS = (*SHARED, "texture", "tint", "light")
SEEN = ("image", "noisy image")


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--pictures", type=int, default=512)
    asked.add_argument("--judge", type=Path, default=Path(tempfile.gettempdir()) / "cliplens-world-judge.safetensors")
    asked.add_argument("--sheet", type=Path, default=None, help="PNG to write: true pictures above, generated below.")
    args = asked.parse_args()
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, {platform.machine()}, 1 thread, {args.pictures} pictures\n")
    judge = load_factor_reader(args.judge)
    scenes = draw_scenes(args.pictures, seed=SEED)
    true = [Image.fromarray(picture) for picture in render(scenes)]
    rows = {"the true pictures": accuracy(judge, true, scenes, FACTORS)}
    generator = WorldGenerator()
    for name, condition in conditions(scenes, true).items():
        started = time.process_time()
        drawn = generator.generate(condition, seed=1)
        spent = (time.process_time() - started) / len(drawn)
        known = FACTORS if name in SEEN else SHARED
        rows[f"from the {name} embedding"] = accuracy(judge, drawn, scenes, known)
        if args.sheet and name == "image":
            sheet(true, drawn, args.sheet)
    table(rows)
    print(
        f"\n{1000 * spent:.1f} ms per picture ({sum(p.numel() for p in generator.painter.parameters()):,} parameters)"
    )


def conditions(scenes: Scenes, pictures: Sequence[Image.Image]) -> dict[str, torch.Tensor]:
    clip = cliplens.load("world", device="cpu")
    with torch.no_grad():
        image = clip.encode_image(torch.stack([clip.preprocess(p) for p in pictures]), normalize=True)
        text = clip.encode_text(clip.tokenizer(captions(scenes)), normalize=True)
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(0)) / image.shape[1] ** 0.5
    shifted = text - text.mean(dim=0) + image.mean(dim=0)
    return {"image": image, "noisy image": image + 0.3 * noise, "text": text, "mean-shifted text": shifted}


def accuracy(
    judge: WorldFactorReader, pictures: Sequence[Image.Image], scenes: Scenes, names: Sequence[str]
) -> Mapping[str, float]:
    read = judge.read(pictures)
    return {name: float(np.mean(read[name] == scenes[name])) for name in names}


def table(rows: Mapping[str, Mapping[str, float]]) -> None:
    print(" " * 36 + "".join(f"{name:>9}" for name in FACTORS))
    for title, found in rows.items():
        print(f"{title:<36}" + "".join(f"{found[n]:>9.3f}" if n in found else f"{'-':>9}" for n in FACTORS))


def sheet(true: Sequence[Image.Image], drawn: Sequence[Image.Image], path: Path, columns: int = 12) -> None:
    rows = [[np.asarray(p) for p in pictures[:columns]] for pictures in (true, drawn)]
    whole = Image.fromarray(np.concatenate([np.concatenate(row, axis=1) for row in rows], axis=0))
    whole.resize((3 * whole.width, 3 * whole.height), Image.Resampling.NEAREST).save(path)


if __name__ == "__main__":
    main()
