"""Train the embedded generator, or the network that reads the factors of its images.

`python -m cliplens_plugins.generators.world_training {generator,reader} --out FILE`
"""

import copy
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from jaxtyping import Float, UInt8
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from cliplens.errors import InputError
from cliplens.hooked import HookedCLIP
from cliplens.progress import Bar
from cliplens.world import FACTORS, SHARED, Scenes, captions, draw_scenes, object_masks, render
from cliplens.world.factors import TILTS
from cliplens_plugins.generators.painter import Painter, PainterConfig, SceneLayout
from cliplens_plugins.generators.world import scaled_condition
from cliplens_plugins.generators.world_factor_reader import load_factor_reader, pixels_to_inputs

GENERATOR_SEED = 3_000_000
DRAWN = (*SHARED, "texture", "tint", "light")
"""Factors that condition the first part of training. The layout conditions both parts; grain is never drawn."""

_IMITATION_STEPS = 1_500


@dataclass(frozen=True)
class PainterRecipe:
    """Training settings of the generator. Part one conditions it on the factors, part two on embeddings."""

    config: PainterConfig = field(default_factory=PainterConfig)
    drawing_steps: int = 1_000
    reading_steps: int = 600
    batch: int = 64
    learning_rate: float = 2e-3
    """Constant in the first part, decaying in the second."""
    warm_up: int = 100
    scenes: int = 24_576
    """Number of scenes of the second part. Each is embedded once, and drawn in a new layout each time it is used."""
    condition_noise: float = 0.2
    """Standard deviation of the noise added to a condition of root mean square 1, so that edited embeddings work."""
    from_captions: float = 0.25
    """Share of samples in the second part that are conditioned on the embedding of the caption."""
    object_weight: float = 4.0
    """Additional weight of pixels inside or next to an object in the loss."""
    average: float = 0.998
    """Decay of the running mean of the weights; the mean is what is saved."""
    seed: int = 0


Report = Callable[[int, nn.ModuleDict], None]


class ToldFactors(nn.Module):
    """Encodes a scene from its factors; used only in the first part of training."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.tables = nn.ModuleDict({name: nn.Embedding(len(FACTORS[name].values), width) for name in DRAWN})

    def forward(self, scenes: Scenes) -> Float[Tensor, "sample width"]:
        """Return the sum of one learned vector per factor."""
        told = [table(torch.from_numpy(scenes[name])) for name, table in self.tables.items()]
        return torch.stack(told).sum(dim=0)


def learn_to_draw(recipe: PainterRecipe, *, report: Report | None = None) -> tuple[Painter, ToldFactors]:
    """Train a painter conditioned on the factors of a scene (part one)."""
    torch.manual_seed(recipe.seed)
    painter, told = Painter(recipe.config), ToldFactors(recipe.config.width)
    order = np.random.default_rng(recipe.seed)

    def loss(step: int) -> Float[Tensor, ""]:
        scenes = draw_scenes(recipe.batch, seed=GENERATOR_SEED + recipe.seed, start=step * recipe.batch)
        return _loss(painter, recipe, _relaid(scenes, order), told(scenes))

    both = nn.ModuleDict({"painter": painter, "told": told})
    kept = _optimised(both, loss, recipe, recipe.drawing_steps, _flat, report)
    return kept["painter"], kept["told"]  # type: ignore[return-value]


def learn_to_read(
    painter: Painter, told: ToldFactors, clip: HookedCLIP, recipe: PainterRecipe, *, report: Report | None = None
) -> Painter:
    """Train the painter conditioned on embeddings (part two); its reader is initialised by imitating `told`."""
    torch.manual_seed(recipe.seed + 1)
    painter.requires_grad_(True)
    scenes = draw_scenes(recipe.scenes, seed=GENERATOR_SEED + recipe.seed + 1)
    conditions = _conditions(clip, scenes)
    _imitate(painter.condition, told, conditions[0], scenes, recipe)
    order = np.random.default_rng(recipe.seed + 1)

    def loss(step: int) -> Float[Tensor, ""]:
        rows = order.integers(len(scenes), size=recipe.batch)
        said = torch.rand(recipe.batch, 1) < recipe.from_captions
        given = torch.where(said, conditions[1, rows], conditions[0, rows])
        given = given + recipe.condition_noise * torch.randn_like(given)
        return _loss(painter, recipe, _relaid(scenes.rows(rows), order), painter.condition(given))

    module = nn.ModuleDict({"painter": painter})
    return _optimised(module, loss, recipe, recipe.reading_steps, _falling, report)["painter"]  # type: ignore[return-value]


def _optimised(
    module: nn.ModuleDict,
    loss_at: Callable[[int], Float[Tensor, ""]],
    recipe: PainterRecipe,
    steps: int,
    schedule: Callable[[int, int], float],
    report: Report | None,
) -> nn.ModuleDict:
    """Train a module; return it with the running mean of its weights, in eval mode."""
    mean = copy.deepcopy(module).requires_grad_(False).eval()
    optimiser = torch.optim.AdamW(module.parameters(), lr=0.0, betas=(0.9, 0.99), weight_decay=0.01)
    for step in Bar(range(steps), desc="training the generator"):
        warm = min(1.0, (step + 1) / recipe.warm_up)
        optimiser.param_groups[0]["lr"] = recipe.learning_rate * warm * schedule(step, steps)
        loss = loss_at(step)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimiser.step()
        _follow(mean, module, min(recipe.average, (1 + step) / (10 + step)))
        if report and (step + 1) % 250 == 0:
            report(step + 1, mean)
    return mean


def _imitate(
    reader: nn.Module,
    told: ToldFactors,
    conditions: Float[Tensor, "scene d_embed"],
    scenes: Scenes,
    recipe: PainterRecipe,
) -> None:
    """Fit the reader of embeddings to the encoding of the factors by `told`."""
    optimiser = torch.optim.AdamW(reader.parameters(), lr=3e-3)
    with torch.no_grad():
        target = told(scenes)
    order = np.random.default_rng(recipe.seed)
    for step in range(_IMITATION_STEPS):
        optimiser.param_groups[0]["lr"] = 3e-3 * _falling(step, _IMITATION_STEPS)
        rows = order.integers(len(scenes), size=256)
        given = conditions[rows] + recipe.condition_noise * torch.randn(256, conditions.shape[1])
        loss = F.mse_loss(reader(given), target[rows])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()


def _loss(
    painter: Painter, recipe: PainterRecipe, scenes: Scenes, known: Float[Tensor, "sample width"]
) -> Float[Tensor, ""]:
    """Return the weighted squared error of the predicted clean image."""
    picture = pixels_to_inputs(render(scenes))
    time = torch.rand(len(scenes))
    mix = time[:, None, None, None]
    state = mix * picture + (1 - mix) * torch.randn_like(picture)
    layout = SceneLayout(torch.from_numpy(scenes["position"]), torch.from_numpy(scenes["tilt"]))
    error = (painter.draw(state, time, known, layout) - picture).square()
    near = F.max_pool2d(torch.from_numpy(object_masks(scenes))[:, None], 3, stride=1, padding=1)
    return (error * (1 + recipe.object_weight * near)).mean()


def _relaid(scenes: Scenes, order: np.random.Generator) -> Scenes:
    """Return the scenes in random layouts and without grain, which embeddings need not encode."""
    n = len(scenes)
    return scenes.replaced(position=order.integers(4, size=n), tilt=order.integers(TILTS, size=n), grain=0)


@torch.no_grad()
def _conditions(clip: HookedCLIP, scenes: Scenes) -> Float[Tensor, "2 scene d_embed"]:
    """Return the embeddings of the images and of the captions of scenes, scaled for the network."""
    preprocess, tokenizer = clip.preprocess, clip.tokenizer
    if preprocess is None or tokenizer is None:
        raise InputError(
            expected="a model with preprocess and tokenizer",
            found="a model without",
            fix="train on cliplens.load('world')",
        )
    sides: tuple[list[Tensor], list[Tensor]] = ([], [])
    for start in Bar(range(0, len(scenes), 256), desc="embedding scenes"):
        part = scenes.rows(slice(start, start + 256))
        sides[0].append(clip.encode_image(_prepared(preprocess, render(part)), normalize=True))
        sides[1].append(clip.encode_text(tokenizer(captions(part)), normalize=True))
    return torch.stack([scaled_condition(torch.cat(side)) for side in sides])


def _prepared(
    preprocess: Callable[[Image.Image], Tensor], pixels: UInt8[np.ndarray, "batch side side 3"]
) -> Float[Tensor, "batch 3 side side"]:
    return torch.stack([preprocess(Image.fromarray(picture)) for picture in pixels])


def _flat(step: int, steps: int) -> float:
    return 1.0


def _falling(step: int, steps: int) -> float:
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps))


@torch.no_grad()
def _follow(mean: nn.Module, leader: nn.Module, keep: float) -> None:
    for own, other in zip(mean.parameters(), leader.parameters(), strict=True):
        own.lerp_(other, 1 - keep)


def save_painter(painter: Painter, path: Path, recipe: PainterRecipe) -> None:
    """Write the weights as float16 safetensors, with the sizes and the recipe as metadata."""
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = {k: v.detach().to(torch.float16).contiguous() for k, v in painter.state_dict().items()}
    metadata = {"config": json.dumps(asdict(painter.config)), "recipe": json.dumps(asdict(recipe))}
    save_file(weights, path, metadata=metadata)


app = typer.Typer(add_completion=False, help=__doc__)


@app.command()
def generator(out: Annotated[Path, typer.Option(help="File to write.")], seed: int = 0) -> None:
    """Train the generator on the default embedded model."""
    from cliplens.api import load

    recipe = PainterRecipe(seed=seed)
    painter = learn_to_read(*learn_to_draw(recipe), load("world", device="cpu"), recipe)
    save_painter(painter, out, recipe)


@app.command()
def reader(out: Annotated[Path, typer.Option(help="File to write.")], seed: int = 0, steps: int = 1500) -> None:
    """Train the network that reads the factors of images."""
    load_factor_reader(out, seed=seed, steps=steps)


app.command(name="judge", hidden=True)(reader)


if __name__ == "__main__":
    torch.set_num_threads(1)
    app()
