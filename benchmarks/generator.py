"""How well does the embedded generator draw the content of an embedding, as read by an independent network?

    python benchmarks/generator.py [--pictures 512] [--judge FILE]

Prints the table of docs/generator.md. The reader's weights are part of the package; FILE names others. The scenes come
from a seed that was not used to train the model, the generator or the reader.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import cliplens
from _bench import bench
from cliplens import world
from cliplens.world import SHARED, Scenes, captions, draw_scenes, render
from cliplens_plugins.generators import WorldFactorReader, WorldGenerator, load_factor_reader
from cliplens_plugins.generators.world_prompts import long_form
from cliplens_plugins.generators.world_reader import weights_file

SEED = 700_000
FACTORS = (*SHARED, "texture", "tint", "light")
SEEN = ("image", "noisy image")


def main() -> None:
    with bench(
        __file__,
        __doc__,
        pictures=512,
        judge=(str(weights_file()), "weights of the reader; a file that is not there is trained first"),
        sheet=(None, "PNG to write: true pictures above, generated below"),
    ) as b:
        judge = load_factor_reader(Path(b.args.judge))
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
        for name, prompts in short_prompts(scenes).items():
            found = accuracy(judge, generator.generate(said(prompts), seed=1), scenes, ("shape", "colour"))
            b.row(f"from {name}", *(found.get(factor) for factor in FACTORS))
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


def short_prompts(scenes: Scenes) -> dict[str, list[str]]:
    """Prompts that name colour and shape alone, such as "a red star", as they are and in the world's long form."""
    names = {factor: [world.FACTORS[factor].values[v] for v in scenes[factor]] for factor in ("colour", "shape")}
    short = [f"a {colour} {shape}" for colour, shape in zip(names["colour"], names["shape"], strict=True)]
    long = [long_form(prompt, seed=seed) for seed, prompt in enumerate(short)]
    return {"short prompts as they are": short, "short prompts in long form": long}


@torch.no_grad()
def said(prompts: Sequence[str]) -> torch.Tensor:
    clip = cliplens.load("world", device="cpu")
    return clip.encode_text(clip.tokenizer(prompts), normalize=True)


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
