"""Train the small model by a short recipe, and test it on pairs that nothing else has seen.

The model is a CLIP of the world with two layers of width 64 in each tower. Contrastive loss alone, batches of 128,
AdamW (.9, .98), weight decay .05, gradient norm at most 1, linear warm-up and cosine decay. From scratch: 300 steps at
3e-3. Again, from a trained model: 60 steps at 1e-3.
"""

import copy
import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from open_clip.model import CLIP
from torch import Tensor, nn
from torch.nn import functional as F

from _advice.planted import Corpus, batches
from cliplens_hooks.models.world import world_tokenizer
from cliplens_hooks.training.world import model_config

BATCH, WARM_UP, WEIGHT_DECAY, LARGEST_SCALE = 128, 20, 0.05, 100.0


@dataclass(frozen=True)
class Recipe:
    """How long and how fast to train."""

    steps: int
    learning_rate: float


SCRATCH, AGAIN = Recipe(300, 3e-3), Recipe(60, 1e-3)


def small_model(seed: int) -> CLIP:
    """Return an untrained model."""
    torch.manual_seed(seed)
    config = model_config(world_tokenizer().vocab_size)
    for tower in ("vision_cfg", "text_cfg"):
        config[tower] |= {"layers": 2, "width": 64}
    config["vision_cfg"]["head_width"], config["text_cfg"]["heads"] = 32, 2
    return CLIP(**config)


def trained(corpus: Corpus, recipe: Recipe, *, seed: int, start: CLIP | None = None) -> CLIP:
    """Return a model trained on pairs, from scratch or from another model, in eval mode."""
    model = small_model(seed) if start is None else copy.deepcopy(start)
    model.train()
    images, tokens = corpus.inputs
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.0, betas=(0.9, 0.98), weight_decay=WEIGHT_DECAY, fused=True)
    target = torch.arange(BATCH)
    for step, rows in enumerate(batches(corpus, BATCH, recipe.steps, seed=seed)):
        decay = 0.5 * (1 + math.cos(math.pi * step / recipe.steps))
        optimiser.param_groups[0]["lr"] = recipe.learning_rate * min(1.0, (step + 1) / WARM_UP) * decay
        image, text, scale = model(images[rows], tokens[rows])[:3]
        logits = scale * image @ text.T
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(LARGEST_SCALE))
    return model.eval()


@dataclass(frozen=True)
class Tested:
    """The results of a model on test pairs."""

    loss: float
    """Contrastive loss in batches of 128, in nats per pair."""
    recall: float
    """R@1 among all test pairs, mean of both ways."""


@torch.no_grad()
def tested(model: CLIP, corpus: Corpus) -> Tested:
    """Return loss and R@1 of a model."""
    image, text = embedded(model, corpus)
    similar = image @ text.T
    own = torch.arange(len(similar))
    recall = sum((similar.argmax(d) == own).double().mean().item() for d in (0, 1)) / 2
    parts = [
        F.cross_entropy(model.logit_scale.exp() * a @ b.T, torch.arange(len(a))).item()
        for one, other in ((image, text), (text, image))
        for a, b in zip(one.split(BATCH), other.split(BATCH), strict=True)
        if len(a) == BATCH
    ]
    return Tested(sum(parts) / len(parts), recall)


@torch.no_grad()
def embedded(model: CLIP, corpus: Corpus) -> tuple[Float[Tensor, "pair d"], Float[Tensor, "pair d"]]:
    """Return unit-norm embeddings of the pictures and of the captions."""
    images, tokens = corpus.inputs
    return (
        torch.cat([model.encode_image(x, normalize=True) for x in images.split(512)]),
        torch.cat([model.encode_text(x, normalize=True) for x in tokens.split(512)]),
    )
