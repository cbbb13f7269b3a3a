"""How well does the embedded generator draw the content of an embedding, as read by an independent network?

    python benchmarks/generator.py [--pictures 512] [--judge FILE]

Prints the table of docs/generator.md. The judge is first trained on pictures of the world (about two minutes), or
loaded from FILE. The scenes come from a seed that was not used to train the model, the generator or the judge.
"""

import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import cliplens
from _bench import bench
from cliplens.world import SHARED, Scenes, captions, draw_scenes, render
from cliplens_plugins.generators import WorldFactorReader, WorldGenerator, load_factor_reader

SEED = 700_000
FACTORS = (*SHARED, "texture", "tint", "light")
SEEN = ("image", "noisy image")


def main() -> None:
    with bench(
        __file__,
        __doc__,
        pictures=512,
        judge=Path(tempfile.gettempdir()) / "cliplens-world-judge.safetensors",
        sheet=(None, "PNG to write: true pictures above, generated below"),
    ) as b:
        judge = load_factor_reader(b.args.judge)
        scenes = draw_scenes(b.args.pictures, seed=SEED)
        true = [Image.fromarray(picture) for picture in render(scenes)]
        b.table("Accuracy of the reader", {"pictures": "", **dict.fromkeys(FACTORS, ".3f")})
        b.row("the true pictures", *accuracy(judge, true, scenes, FACTORS).values())
        generator = WorldGenerator()
        for name, condition in conditions(scenes, true).items():
            started = time.process_time()
            drawn = generator.generate(condition, seed=1)
            spent = (time.process_time() - started) / len(drawn)
            found = accuracy(judge, drawn, scenes, FACTORS if name in SEEN else SHARED)
            b.row(f"from the {name} embedding", *(found.get(factor) for factor in FACTORS))
            if b.args.sheet and name == "image":
                sheet(true, drawn, Path(b.args.sheet))
        b.note("ms per picture", 1000 * spent, ".1f")
        b.note("parameters of the generator", sum(p.numel() for p in generator.painter.parameters()), ",d")


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


def sheet(true: Sequence[Image.Image], drawn: Sequence[Image.Image], path: Path, columns: int = 12) -> None:
    rows = [[np.asarray(p) for p in pictures[:columns]] for pictures in (true, drawn)]
    whole = Image.fromarray(np.concatenate([np.concatenate(row, axis=1) for row in rows], axis=0))
    whole.resize((3 * whole.width, 3 * whole.height), Image.Resampling.NEAREST).save(path)


if __name__ == "__main__":
    main()
