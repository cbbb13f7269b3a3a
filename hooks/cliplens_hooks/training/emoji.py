"""Train the embedded model of real drawings and its twins.

`python -m cliplens_hooks.training.emoji {clip,seed1,seed2,plain,two-artists}`, with CLIPLENS_DATA set.

A contrastive loss alone erases from the joint embedding what only one modality has: who drew the picture, and in which
language the caption is. As for the embedded world, added losses reward them through a noisy bottleneck: a small decoder
reconstructs the drawing, coarsely, and names its artist; another reconstructs the bag of tokens of the caption, and
names its language. `plain` is the same recipe without them, the control. A training that was stopped goes on from its
last checkpoint.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from jaxtyping import Float, Int64
from open_clip.model import CLIP
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from cliplens.errors import CliplensError
from cliplens.pairs.emoji import ARTISTS
from cliplens.progress import Bar
from cliplens_hooks.models.emoji import (
    CONTEXT,
    MEAN,
    NAME,
    SIDE,
    STD,
    TRAINED_LANGUAGES,
    emoji_tokenizer,
    twin_folder,
)
from cliplens_hooks.training.emoji_data import Batch, Data, augmented, normalised
from cliplens_hooks.training.emoji_text import save_merges
from cliplens_hooks.training.muon import Muon

EMBED_DIM = 96
_WIDTH, _HEADS = 128, 4
_COARSE = 16
_SHARPENING = 2.0
_EVERY = 100


@dataclass(frozen=True)
class Recipe:
    """Losses and length of one training."""

    picture: float = 0.5
    """Weight of the reconstruction of the drawing."""
    words: float = 0.005
    """Weight of the bag of tokens, whose loss is in nats per caption."""
    artist: float = 1.0
    """Weight of naming the artist."""
    language: float = 0.05
    """Weight of naming the language."""
    noise: float = 0.7
    """Standard deviation per dimension of the noise before the decoders; the embedding has root mean square 1."""
    english: float = 0.65
    """Share of the contrastive loss that is of English captions; the rest is of the other languages."""
    max_logit_scale: float = 50.0
    artists: tuple[str, ...] = tuple(ARTISTS)
    steps: int = 700
    batch: int = 128
    learning_rate: float = 2e-3
    warm_up: int = 50
    weight_decay: float = 0.1
    seed: int = 0

    @property
    def keeps(self) -> bool:
        """Whether the losses that keep what one modality alone has are part of it."""
        return bool(self.picture or self.words or self.artist or self.language)


_PLAIN = Recipe(picture=0.0, words=0.0, artist=0.0, language=0.0, noise=0.0)
RECIPES: dict[str, Recipe] = {
    "clip": Recipe(),
    "seed1": Recipe(seed=1),
    "seed2": Recipe(seed=2),
    "plain": _PLAIN,
    "two-artists": Recipe(artists=("noto", "twemoji")),
}
"""`clip` is shipped as `emoji`. `two-artists` never sees Fluent, to measure an artist left out."""


def model_config(vocab_size: int) -> dict[str, Any]:
    """Return the open_clip configuration of the model."""
    vision = {"layers": 4, "width": _WIDTH, "head_width": _WIDTH // _HEADS, "image_size": SIDE, "patch_size": 16}
    text = {"layers": 2, "width": _WIDTH, "heads": _HEADS, "context_length": CONTEXT, "vocab_size": vocab_size}
    return {"embed_dim": EMBED_DIM, "vision_cfg": vision, "text_cfg": text}


class Decoders(nn.Module):
    """Decoders of the added losses. They are not part of the trained model."""

    def __init__(self, recipe: Recipe, vocab_size: int) -> None:
        super().__init__()
        self.noise = recipe.noise
        self.picture = _mlp(3 * _COARSE * _COARSE)
        self.bag = _mlp(vocab_size)
        nn.init.constant_(self.bag[-1].bias, -6.0)  # type: ignore[arg-type]
        self.artist = nn.Linear(EMBED_DIM, len(recipe.artists))
        self.language = nn.Linear(EMBED_DIM, len(TRAINED_LANGUAGES))

    def noisy(self, unit: Float[Tensor, "batch d_embed"]) -> Float[Tensor, "batch d_embed"]:
        """Return embeddings of root mean square 1 with noise."""
        scaled = unit * math.sqrt(unit.shape[1])
        return scaled + self.noise * torch.randn_like(scaled)


def encode_text(model: CLIP, tokens: Int64[Tensor, "batch token"]) -> Float[Tensor, "batch d_embed"]:
    """Return unit-norm embeddings, equal to the model's own, at the cost of the width of `tokens`."""
    width = tokens.shape[1]
    stream = model.token_embedding(tokens) + model.positional_embedding[:width]
    stream = model.ln_final(model.transformer(stream, attn_mask=model.attn_mask[:width, :width]))
    pooled = stream[torch.arange(len(tokens)), tokens.argmax(dim=1)]
    return F.normalize(pooled @ model.text_projection, dim=-1)


def encode_captions(model: CLIP, data: Data, captions: list[list[int]]) -> Float[Tensor, "batch d_embed"]:
    """Return unit-norm embeddings of captions, in four parts by length."""
    order = np.argsort([len(ids) for ids in captions], kind="stable")
    parts = [part for part in np.array_split(order, 4) if len(part)]
    rows = torch.cat([encode_text(model, data.padded([captions[n] for n in part])) for part in parts])
    return rows[torch.from_numpy(np.argsort(order, kind="stable"))]


def loss_of(
    model: CLIP, decoders: Decoders, recipe: Recipe, data: Data, batch: Batch, rng: np.random.Generator
) -> Tensor:
    """Return the loss of a batch."""
    image = F.normalize(model.visual(augmented(batch.pixels, rng)), dim=-1)
    captions = [*batch.english, *batch.other]
    texts = encode_captions(model, data, captions)
    target = torch.arange(len(image))
    loss = image.new_zeros(())
    for text, share in zip(texts.split(len(image)), (recipe.english, 1 - recipe.english), strict=True):
        logits = model.logit_scale.exp() * image @ text.T
        loss = loss + share * (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    return loss + _kept(decoders, recipe, data, batch, image, texts) if recipe.keeps else loss


def _kept(decoders: Decoders, recipe: Recipe, data: Data, batch: Batch, image: Tensor, texts: Tensor) -> Tensor:
    """The losses that keep what one modality alone has."""
    seen, said = decoders.noisy(image), decoders.noisy(texts)
    picture = F.mse_loss(decoders.picture(seen), _coarse(normalised(batch.pixels)))
    tokens = data.padded([*batch.english, *batch.other])
    bag = torch.zeros(len(tokens), data.vocab_size).scatter_(1, tokens, 1.0)
    words = F.binary_cross_entropy_with_logits(decoders.bag(said), bag, reduction="sum") / len(bag)
    language = torch.cat([torch.zeros_like(batch.language), batch.language])
    artist = F.cross_entropy(decoders.artist(seen), batch.artist)
    tongue = F.cross_entropy(decoders.language(said), language)
    return recipe.picture * picture + recipe.words * words + recipe.artist * artist + recipe.language * tongue


def _coarse(pictures: Float[Tensor, "batch 3 side side"]) -> Float[Tensor, "batch pixels"]:
    """Return pictures at a quarter of their size, with fine structure amplified to weigh outline like colour."""
    small = F.avg_pool2d(pictures, SIDE // _COARSE)
    smooth = F.interpolate(F.avg_pool2d(small, 4), scale_factor=4)
    return (small + _SHARPENING * (small - smooth)).flatten(1)


def _mlp(d_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(EMBED_DIM, 256), nn.GELU(), nn.Linear(256, d_out))


class Training:
    """A training that can be stopped and goes on: everything random follows from seed and step."""

    def __init__(self, recipe: Recipe, data: Data) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.data, self.step = recipe, data, 0
        self.model = CLIP(**model_config(emoji_tokenizer().vocab_size))
        self.decoders = Decoders(recipe, self.model.vocab_size)
        blocks = [
            p for n, p in self.model.named_parameters() if "resblocks" in n and p.ndim == 2
        ]  # matrices, for which Muon is made
        ids = {id(p) for p in blocks}
        rest = [p for p in (*self.model.parameters(), *self.decoders.parameters()) if id(p) not in ids]
        self.optimisers: tuple[torch.optim.Optimizer, ...] = (
            Muon(blocks, lr=0.0, weight_decay=recipe.weight_decay),
            torch.optim.AdamW(rest, lr=0.0, betas=(0.9, 0.98), weight_decay=recipe.weight_decay),
        )
        self.parameters = [*blocks, *rest]

    def advance(self) -> float:
        """Take one step and return its loss."""
        recipe = self.recipe
        rng = np.random.default_rng([recipe.seed, self.step])
        torch.manual_seed(recipe.seed * 1_000_003 + self.step)
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = recipe.learning_rate * schedule(self.step, recipe)
            optimiser.zero_grad(set_to_none=True)
        batch = self.data.batch(recipe.batch, rng)
        loss = loss_of(self.model, self.decoders, recipe, self.data, batch, rng)
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for optimiser in self.optimisers:
            optimiser.step()
        with torch.no_grad():
            self.model.logit_scale.clamp_(0, math.log(recipe.max_logit_scale))
        self.step += 1
        return float(loss.detach())

    def save(self, path: Path) -> None:
        """Write weights and the state of the optimisers; whole or not at all."""
        kept = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        kept |= {f"decoders.{k}": v for k, v in self.decoders.state_dict().items()}
        for number, optimiser in enumerate(self.optimisers):
            for place, state in optimiser.state_dict()["state"].items():
                kept |= {f"optimiser.{number}.{place}.{name}": value for name, value in state.items()}
        beside = path.with_suffix(".part")
        about = {"recipe": json.dumps(asdict(self.recipe)), "step": str(self.step)}
        save_file({k: v.detach().contiguous().clone() for k, v in kept.items()}, beside, metadata=about)
        beside.replace(path)

    def resume(self, path: Path) -> bool:
        """Go on from a checkpoint of the same recipe; return whether there was one."""
        from safetensors import safe_open

        if not path.is_file():
            return False
        with safe_open(path, "pt") as file:
            about = file.metadata()
        if about["recipe"] != json.dumps(asdict(self.recipe)):
            return False
        kept = load_file(path)
        of = lambda prefix: {k.removeprefix(prefix): v for k, v in kept.items() if k.startswith(prefix)}  # noqa: E731
        self.model.load_state_dict(of("model."))
        self.decoders.load_state_dict(of("decoders."))
        for number, optimiser in enumerate(self.optimisers):
            state: dict[int, dict[str, Tensor]] = {}
            for name, value in of(f"optimiser.{number}.").items():
                place, key = name.split(".", 1)
                state.setdefault(int(place), {})[key] = value
            optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
        self.step = int(about["step"])
        return True


def train(recipe: Recipe, data: Data, *, checkpoint: Path | None = None) -> CLIP:
    """Train a model by the recipe and return it in eval mode.

    Args:
        recipe: losses and length.
        data: what the model may see.
        checkpoint: file to go on from, written every 100 steps; None keeps none.
    """
    training = Training(recipe, data)
    if checkpoint is not None:
        training.resume(checkpoint)
    steps = Bar(range(training.step, recipe.steps), desc="training", mininterval=5)
    for _ in steps:
        loss = training.advance()
        steps.set_postfix(loss=f"{loss:.2f}", refresh=False)
        if checkpoint is not None and (training.step % _EVERY == 0 or training.step == recipe.steps):
            training.save(checkpoint)
    return training.model.eval()


def schedule(step: int, recipe: Recipe) -> float:
    """Return the factor of the learning rate: linear warm-up, then cosine decay to 0."""
    return min(1.0, (step + 1) / recipe.warm_up) * 0.5 * (1 + math.cos(math.pi * step / recipe.steps))


def save_model(model: CLIP, folder: Path, *, recipe: Recipe) -> None:
    """Write an open_clip folder: `open_clip_config.json` and float16 `open_clip_model.safetensors`."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {k: v.detach().to(torch.float16).contiguous() for k, v in model.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors", metadata={"recipe": json.dumps(asdict(recipe))})
    preprocess = {"mean": list(MEAN), "std": list(STD), "interpolation": "bicubic", "resize_mode": "shortest"}
    config = {"model_cfg": model_config(model.vocab_size), "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")


app = typer.Typer(add_completion=False, help=__doc__)


@app.command()
def merges() -> None:
    """Learn the byte-pair merges from the names, once, before the first training."""
    save_merges()


def _command(name: str, about: str) -> None:
    def make(
        out: Annotated[Path | None, typer.Option(help="Folder to write; default: where load() looks for it.")] = None,
        steps: Annotated[int, typer.Option(help="0 takes the recipe's.")] = 0,
        seed: Annotated[int | None, typer.Option(help="Of the first weights and the batches.")] = None,
    ) -> None:
        recipe = RECIPES[name]
        recipe = replace(recipe, steps=steps or recipe.steps, seed=recipe.seed if seed is None else seed)
        folder = out or twin_folder(f"{NAME}-{name}")
        folder.mkdir(parents=True, exist_ok=True)
        try:
            data = Data(recipe.artists)
        except CliplensError as error:
            typer.echo(f"{error}", err=True)
            raise typer.Exit(2) from error
        checkpoint = folder / "checkpoint.safetensors"
        save_model(train(recipe, data, checkpoint=checkpoint), folder, recipe=recipe)
        checkpoint.unlink(missing_ok=True)

    app.command(name, help=about)(make)


_ABOUT: Sequence[tuple[str, str]] = (
    ("clip", f"Train the model that is shipped, load({NAME!r}). Its folder in the package: {NAME}."),
    ("seed1", "Train its twin of another seed."),
    ("seed2", "Train its twin of a third seed."),
    ("plain", "Train its plain contrastive twin, the control."),
    ("two-artists", "Train on Noto and Twemoji only, to measure an artist left out."),
)
for _name, _about in _ABOUT:
    _command(_name, _about)

if __name__ == "__main__":
    torch.set_num_threads(1)
    app()
