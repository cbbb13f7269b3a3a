"""Train the embedded models and their twins.

`python -m cliplens_hooks.training.world {clip,plain,slip,split} --out FOLDER`

The plain contrastive loss does not reward factors that only one modality has, so training erases them from the joint
embedding. The default recipe adds a loss that rewards them: through a noisy bottleneck, a small decoder reconstructs
the picture (first copy in the first quadrant, upright, smooth) from the image embedding, and the bag of words of the
caption (with the usual words) from the text embedding. Other properties (position, grain, the choice of a synonym) may
vanish. Because of the noise, the embedding represents the factors with large variance, so that a dictionary can find
them.
"""

import gzip
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from jaxtyping import Float, Int64, UInt8
from open_clip.model import CLIP
from open_clip.tokenizer import SimpleTokenizer, default_bpe
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from cliplens.progress import Bar
from cliplens.world import Scenes, captions, draw_scenes, lexicon, render
from cliplens.world.assets import MERGES
from cliplens.world.factors import SAID
from cliplens_hooks.models.world import CONTEXT, PREPROCESS, pixels_to_tensor, world_tokenizer

TRAINING_SEED = 1_000_000
"""First seed of the training scenes. Seeds from here on are reserved for training."""

EMBED_DIM = 64
_WIDTH = 96
_LAYERS = 3
_HEADS = 3
_COARSE = 16
_SHARPENING = 2.0


@dataclass(frozen=True)
class Recipe:
    """The loss weights of one embedded model. Steps, batch size and optimiser are the same for all of them."""

    reconstruction: float
    """Weight of the reconstruction of the picture."""
    words: float
    """Weight of the reconstruction of the bag of words."""
    noise: float
    """Standard deviation per dimension of the noise before the decoders; the embedding has root mean square 1."""
    max_logit_scale: float
    views: float = 0.0
    """Weight of the contrastive loss between two views of a picture: SLIP, https://arxiv.org/abs/2112.12750."""
    locked_steps: int = 0
    """Number of further steps with a frozen image tower and weight `locked_words` on the bag of words."""
    locked_words: float = 0.0
    steps: int = 1200
    batch: int = 128
    learning_rate: float = 2e-3
    warm_up: int = 50
    weight_decay: float = 0.05
    seed: int = 0


RECIPES: dict[str, Recipe] = {
    "world": Recipe(reconstruction=2.0, words=0.3, noise=0.7, max_logit_scale=20.0),
    "world-plain": Recipe(reconstruction=0.0, words=0.0, noise=0.0, max_logit_scale=100.0),
    "world-slip": Recipe(reconstruction=0.0, words=0.0, noise=0.0, max_logit_scale=100.0, views=1.0),
    "world-split": Recipe(
        reconstruction=2.0, words=0.3, noise=0.0, max_logit_scale=100.0, locked_steps=300, locked_words=1.0
    ),
}
"""`world` and `world-plain` are shipped. `world-slip` is the self-supervised twin of `world-plain`. `world-split` keeps
the single-modality factors with little variance on the image side, and a wide modality gap: there dictionaries tend to
split a shared concept into one latent per modality."""


class Decoders(nn.Module):
    """Decoders of the added losses. They are not part of the trained model."""

    def __init__(self, recipe: Recipe, n_words: int) -> None:
        super().__init__()
        self.noise = recipe.noise
        self.picture = _mlp(3 * _COARSE * _COARSE)
        self.bag = _mlp(n_words)
        self.view = _mlp(EMBED_DIM) if recipe.views else nn.Identity()

    def forward(
        self,
        image: Float[Tensor, "batch d_embed"],
        text: Float[Tensor, "batch d_embed"],
        coarse: Float[Tensor, "batch pixels"],
        bag: Float[Tensor, "batch word"],
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Return the mean squared error of the coarse picture, and the loss of the bag of words in nats per caption."""
        picture = F.mse_loss(self.picture(self._noisy(image)), coarse)
        words = F.binary_cross_entropy_with_logits(self.bag(self._noisy(text)), bag, reduction="sum") / len(bag)
        return picture, words

    def _noisy(self, unit: Float[Tensor, "batch d_embed"]) -> Float[Tensor, "batch d_embed"]:
        scaled = unit * math.sqrt(unit.shape[1])
        return scaled + self.noise * torch.randn_like(scaled)


def model_config(vocab_size: int) -> dict[str, Any]:
    """Return the open_clip configuration of the embedded models.

    Both towers have the same width and depth, so that one dictionary can be trained at any layer of both.
    """
    tower = {"layers": _LAYERS, "width": _WIDTH}
    return {
        "embed_dim": EMBED_DIM,
        "vision_cfg": {**tower, "image_size": PREPROCESS.side, "patch_size": 12, "head_width": _WIDTH // _HEADS},
        "text_cfg": {**tower, "context_length": CONTEXT, "vocab_size": vocab_size, "heads": _HEADS},
    }


def train(recipe: Recipe, *, report: Callable[[int, CLIP], None] | None = None) -> CLIP:
    """Train a model from scratch by the recipe, and return it in eval mode."""
    torch.manual_seed(recipe.seed)
    tokenizer = world_tokenizer()
    model = CLIP(**model_config(tokenizer.vocab_size))
    bag_of = Bags(tokenizer)
    decoders = Decoders(recipe, bag_of.n_words)
    parameters = [*model.parameters(), *decoders.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=0.0, betas=(0.9, 0.98), weight_decay=recipe.weight_decay)
    for step in Bar(range(recipe.steps + recipe.locked_steps), desc="training"):
        scenes = draw_scenes(recipe.batch, seed=TRAINING_SEED + recipe.seed, start=step * recipe.batch)
        optimiser.param_groups[0]["lr"] = recipe.learning_rate * schedule(step, recipe)
        if step == recipe.steps:
            model.visual.requires_grad_(False)
        loss = _loss(model, decoders, _of_step(recipe, step), scenes, tokenizer, bag_of)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(recipe.max_logit_scale))
        if report and (step + 1) % 100 == 0:
            report(step + 1, model)
    return model.eval().requires_grad_(True)


def _of_step(recipe: Recipe, step: int) -> Recipe:
    return recipe if step < recipe.steps else replace(recipe, words=recipe.locked_words, reconstruction=0.0)


def _loss(
    model: CLIP, decoders: Decoders, recipe: Recipe, scenes: Scenes, tokenizer: SimpleTokenizer, bag_of: "Bags"
) -> Float[Tensor, ""]:
    image, text, scale = model(pixels_to_tensor(render(scenes)), tokenizer(captions(scenes)))[:3]
    logits = scale * image @ text.T
    target = torch.arange(len(scenes))
    loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    if recipe.reconstruction or recipe.words:
        usual = scenes.replaced(position=0, tilt=0, grain=0, **dict.fromkeys(SAID, 0))
        picture, words = decoders(image, text, _coarse(render(usual)), bag_of(captions(usual)))
        loss = loss + recipe.reconstruction * picture + recipe.words * words
    if recipe.views:
        other = F.normalize(model.encode_image(pixels_to_tensor(render(_another_view(scenes)))), dim=-1)
        loss = loss + recipe.views * _told_apart(decoders.view(image), decoders.view(other))
    return loss


def _another_view(scenes: Scenes) -> Scenes:
    """Return the scenes with objects at other positions: the augmentation, in place of SLIP's crops and flips."""
    turned = {name: np.roll(scenes[name], 1) for name in ("position", "tilt", "grain", "field")}
    return scenes.replaced(**turned)


def _told_apart(one: Float[Tensor, "batch d"], other: Float[Tensor, "batch d"]) -> Float[Tensor, ""]:
    """Return SimCLR's loss, both ways, at temperature 0.1. It uses the embedding; SLIP, a head on pooled features."""
    logits = 10.0 * F.normalize(one, dim=-1) @ F.normalize(other, dim=-1).T
    target = torch.arange(len(one))
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def _coarse(pictures: UInt8[np.ndarray, "batch side side 3"]) -> Float[Tensor, "batch pixels"]:
    """Return pictures at a third of their size, with fine structure amplified to weigh outline like colour."""
    small = F.avg_pool2d(pixels_to_tensor(pictures), PREPROCESS.side // _COARSE)
    smooth = F.interpolate(F.avg_pool2d(small, 4), scale_factor=4)
    return (small + _SHARPENING * (small - smooth)).flatten(1)


class Bags:
    """Maps captions to bags of words."""

    def __init__(self, tokenizer: SimpleTokenizer) -> None:
        self._tokenizer = tokenizer
        used = {token for word in lexicon() for token in tokenizer.encode(word)}
        self._place = torch.full((tokenizer.vocab_size,), -1, dtype=torch.int64)
        self._place[torch.tensor(sorted(used))] = torch.arange(len(used))
        self.n_words = len(used)

    def __call__(self, texts: list[str]) -> Float[Tensor, "batch word"]:
        place: Int64[Tensor, "batch context"] = self._place[self._tokenizer(texts)]
        bag = torch.zeros(len(texts), self.n_words + 1)
        bag.scatter_(1, place.where(place >= 0, torch.tensor(self.n_words)), 1.0)
        return bag[:, :-1]


def _mlp(d_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(EMBED_DIM, 256), nn.GELU(), nn.Linear(256, d_out))


def schedule(step: int, recipe: Recipe) -> float:
    """Return the factor of the learning rate: linear warm-up, then cosine decay to 0."""
    warm = min(1.0, (step + 1) / recipe.warm_up)
    if step >= recipe.steps:
        return 0.25 * (1 - (step - recipe.steps) / recipe.locked_steps)
    return warm * 0.5 * (1 + math.cos(math.pi * step / recipe.steps))


def save_model(model: CLIP, folder: Path, *, recipe: Recipe) -> None:
    """Write an open_clip folder: `open_clip_config.json` and float16 `open_clip_model.safetensors`."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {k: v.detach().to(torch.float16).contiguous() for k, v in model.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors", metadata={"recipe": json.dumps(asdict(recipe))})
    config = {
        "model_cfg": model_config(model.token_embedding.num_embeddings),
        "preprocess_cfg": {
            "mean": list(PREPROCESS.mean),
            "std": list(PREPROCESS.std),
            "interpolation": "bicubic",
            "resize_mode": "shortest",
        },
    }
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")


def pruned_merges(words: tuple[str, ...]) -> list[str]:
    """Return the merges of CLIP's byte-pair encoding that are needed to tokenise `words`, in its order."""
    full = SimpleTokenizer(default_bpe())
    pieces = {piece for word in words for piece in full.bpe(_as_bytes(full, word)).split(" ")}
    needed: set[str] = set()
    made_by = {"".join(merge): merge for merge in full.bpe_ranks}
    todo = list(pieces)
    while todo:
        piece = todo.pop()
        if piece in needed or piece not in made_by:
            continue
        needed.add(piece)
        todo.extend(made_by[piece])
    return [" ".join(merge) for merge in full.bpe_ranks if "".join(merge) in needed]


def save_merges(path: Path = MERGES) -> None:
    """Write the pruned merges, with reproducible bytes."""
    lines = ["#version: 0.2", *pruned_merges(lexicon())]
    with path.open("wb") as raw, gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as file:
        file.write("\n".join(lines).encode())


def _as_bytes(tokenizer: SimpleTokenizer, word: str) -> str:
    return "".join(tokenizer.byte_encoder[b] for b in word.encode())


app = typer.Typer(add_completion=False, help=__doc__)


@app.command()
def merges(out: Annotated[Path, typer.Option(help="File to write.")] = MERGES) -> None:
    """Prune CLIP's merges to the words of the captions."""
    save_merges(out)


def _command(name: str, about: str) -> None:
    def make(
        out: Annotated[Path, typer.Option(help="Folder to write.")],
        seed: Annotated[int, typer.Option(help="Of the first weights and the scenes.")] = 0,
        steps: Annotated[int, typer.Option(help="0 takes the recipe's.")] = 0,
    ) -> None:
        recipe = replace(RECIPES[name], seed=seed, steps=steps or RECIPES[name].steps)
        save_model(train(recipe), out, recipe=recipe)

    app.command(name.removeprefix("world-") if name != "world" else "clip", help=about)(make)


_command("world", "Train the default model, with the losses that keep what one side alone knows.")
_command("world-plain", "Train its plain contrastive twin, the negative control.")
_command("world-slip", "Train the self-supervised twin of the plain one. Not shipped.")
_command("world-split", "Train the variant in which dictionaries tend to split. Not shipped.")

if __name__ == "__main__":
    torch.set_num_threads(1)
    np.seterr(all="raise", under="ignore")
    app()
