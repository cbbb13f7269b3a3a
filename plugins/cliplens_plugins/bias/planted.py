"""Plant a bias on the embedded world: the colour follows the shape at a known rate, in images, captions or both."""

from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cliplens import keys
from cliplens.hooked import HookedCLIP
from cliplens.world import FACTORS, Scenes, captions, draw_scenes, scene_pairs, value_sentences
from cliplens_plugins.bias.data import BiasData, Prompts, Utility

Where = Literal["images", "captions", "both", "neither"]
WHERE: tuple[Where, ...] = ("images", "captions", "both", "neither")
GROUPS, TARGETS = ("red", "blue"), ("circle", "square")
UNRELATED = "size"
NEUTRAL = 328
_SEED = 9_000_000


def tied_scenes(
    n: int, rate: float, *, seed: int = 0, colours: tuple[str, ...] | None = None, shapes: tuple[str, ...] | None = None
) -> Scenes:
    """Return scenes whose colour follows from the shape with probability `rate`, and is random otherwise.

    Shape number i has colour number i.

    Args:
        n: number of scenes.
        rate: from 0 (independent) to 1 (always).
        seed: seed of the scenes.
        colours: colours to use; None takes all eight.
        shapes: shapes to use; None takes all eight.
    """
    of = {"shape": shapes or FACTORS["shape"].values, "colour": colours or FACTORS["colour"].values}
    scenes = draw_scenes(n, seed=_SEED + seed)
    index = np.arange(n, dtype=np.uint64)
    shape = (keys.hashed_uniform(index, seed + 11) * len(of["shape"])).astype(int)
    free = (keys.hashed_uniform(index, seed + 12) * len(of["colour"])).astype(int)
    colour = np.where(keys.hashed_uniform(index, seed + 13) < rate, shape % len(of["colour"]), free)
    numbers = {name: np.array([FACTORS[name].values.index(v) for v in values]) for name, values in of.items()}
    return scenes.replaced(shape=numbers["shape"][shape], colour=numbers["colour"][colour])


def planted_pairs(
    clip: HookedCLIP, n: int, rate: float, where: Where, *, seed: int = 0
) -> tuple[Float[Tensor, "pair d"], Float[Tensor, "pair d"]]:
    """Return embeddings of pairs with the bias planted in one modality, in both or in neither.

    If only one modality is biased, the other has a random colour. In everything else, image and caption agree.
    """
    tied, free = tied_scenes(n, rate, seed=seed), tied_scenes(n, 0.0, seed=seed + 1).values["colour"]
    shown = tied if where in ("images", "both") else tied.replaced(colour=free)
    said = (
        tied if where in ("captions", "both") else tied.replaced(colour=shown["colour"] if where == "neither" else free)
    )
    return embed_scenes(clip, shown), embed_texts(clip, captions(said))


def planted_data(
    clip: HookedCLIP,
    *,
    rate: float = 0.95,
    train: int = 200,
    test: int = 800,
    utility: Utility | None = None,
    seed: int = 0,
) -> BiasData:
    """Return labelled images of red and blue circles and squares: training images biased at `rate`, test images not."""
    scenes = [
        tied_scenes(n, r, seed=seed + i, colours=GROUPS, shapes=TARGETS)
        for i, (n, r) in enumerate(((train, rate), (test, 0.0)))
    ]
    image = torch.cat([embed_scenes(clip, part) for part in scenes])
    group, target, unrelated = (np.concatenate([part[f] for part in scenes]) for f in ("colour", "shape", UNRELATED))
    numbers = [[FACTORS[f].values.index(v) for v in values] for f, values in (("colour", GROUPS), ("shape", TARGETS))]
    kept = None
    if utility is not None:
        sentences = sentences_of(clip, UNRELATED)
        kept = Utility(utility.image, utility.text, unrelated, sentences)
    return BiasData(
        image,
        np.array([numbers[0].index(g) for g in group]),
        np.array([numbers[1].index(t) for t in target]),
        np.arange(train + test) < train,
        GROUPS,
        TARGETS,
        world_prompts(clip),
        kept,
    )


def world_prompts(clip: HookedCLIP) -> Prompts:
    """Return prompts of groups and targets. The neutral prompts are random captions, which mention some colour."""
    neutral = captions(draw_scenes(NEUTRAL, seed=_SEED + 99))
    return Prompts(
        sentences_of(clip, "shape", TARGETS), sentences_of(clip, "colour", GROUPS), embed_texts(clip, neutral)
    )


def sentences_of(
    clip: HookedCLIP, factor: str, values: tuple[str, ...] | None = None
) -> Float[Tensor, "value sentence d"]:
    """Return embeddings of captions that name each value of a factor and are equal otherwise."""
    said = value_sentences(factor)
    chosen = [said[FACTORS[factor].values.index(v)] for v in values] if values else said
    return torch.stack([embed_texts(clip, of) for of in chosen])


@torch.no_grad()
def embed_scenes(clip: HookedCLIP, scenes: Scenes, size: int = 128) -> Float[Tensor, "scene d"]:
    """Return unit-norm embeddings of the pictures of scenes, float64."""
    pairs = scene_pairs(scenes, ids=(f"scene-{n}" for n in range(len(scenes))))
    preprocess: Any = clip.preprocess
    rows = []
    for start in range(0, len(scenes), size):
        pictures = torch.stack([preprocess(pairs[i].image) for i in range(start, min(start + size, len(scenes)))])
        rows.append(clip.encode_image(pictures.to(clip.device, clip.dtype), normalize=True).flatten(1))
    return torch.cat(rows).double().cpu()


@torch.no_grad()
def embed_texts(clip: HookedCLIP, texts: list[str], size: int = 256) -> Float[Tensor, "text d"]:
    """Return unit-norm embeddings of texts, float64."""
    tokenizer: Any = clip.tokenizer
    parts = [tokenizer(texts[n : n + size]).to(clip.device) for n in range(0, len(texts), size)]
    return torch.cat([clip.encode_text(part, normalize=True).flatten(1) for part in parts]).double().cpu()
