"""Classify the factors of images of the world with a small convolutional network, to judge generated images.

The network is trained only on rendered images of the world, never on those of the models that it judges. Its weights
are in `assets`. Training it again takes about four minutes on one core.
"""

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from cliplens.progress import Bar
from cliplens.world import FACTORS, IMAGE_ONLY, SHARED, draw_scenes, render

FACTORS_READ = (*SHARED, *IMAGE_ONLY)
"""Factors that are visible in an image."""
READER_SEED = 2_000_000

_BATCH = 64


class WorldFactorReader(nn.Module):
    """Classifies every factor that is visible in an image of the world."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 32, 64, 128, 128)
        self.body = nn.Sequential(*(_stage(a, b) for a, b in pairwise(widths)), nn.Flatten())
        self.heads = nn.Linear(128 * 9, sum(len(FACTORS[name].values) for name in FACTORS_READ))

    def forward(self, pictures: Float[Tensor, "picture 3 48 48"]) -> dict[str, Float[Tensor, "picture value"]]:
        """Return logits per factor of images with pixels in [-1, 1]."""
        logits = self.heads(self.body(pictures))
        return dict(zip(FACTORS_READ, logits.split([len(FACTORS[n].values) for n in FACTORS_READ], dim=1), strict=True))

    @torch.no_grad()
    def read(self, images: Sequence[Image.Image]) -> dict[str, Int[np.ndarray, " picture"]]:
        """Return, for each factor, the index in `FACTORS[name].values` of the value that each image shows."""
        pixels = np.stack([np.asarray(image.convert("RGB")) for image in images])
        parts = [self(pixels_to_inputs(pixels[i : i + 256])) for i in range(0, len(pixels), 256)]
        return {name: torch.cat([part[name].argmax(dim=1) for part in parts]).numpy() for name in FACTORS_READ}


def _stage(d_in: int, d_out: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(d_in, d_out, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(d_out), nn.ReLU(inplace=True)
    )


def pixels_to_inputs(pixels: UInt8[np.ndarray, "picture 48 48 3"]) -> Float[Tensor, "picture 3 48 48"]:
    """Return pictures as the inputs of the network, from -1 to 1."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous().float().div_(127.5).sub_(1)


def train_factor_reader(*, steps: int = 1500, seed: int = 0) -> WorldFactorReader:
    """Train a reader from scratch on newly rendered images."""
    torch.manual_seed(seed)
    reader = WorldFactorReader()
    optimiser = torch.optim.AdamW(reader.parameters(), lr=3e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps, pct_start=0.1)
    for step in Bar(range(steps), desc="training the reader"):
        scenes = draw_scenes(_BATCH, seed=READER_SEED + seed, start=step * _BATCH)
        logits = reader(pixels_to_inputs(render(scenes)))
        losses = [F.cross_entropy(logits[name], torch.from_numpy(scenes[name])) for name in FACTORS_READ]
        optimiser.zero_grad(set_to_none=True)
        torch.stack(losses).sum().backward()
        optimiser.step()
        schedule.step()
    return reader.eval()


def _dtype(tensor: Tensor) -> torch.dtype:
    return torch.float32 if tensor.is_floating_point() else tensor.dtype


def load_factor_reader(path: Path, *, steps: int = 1500, seed: int = 0) -> WorldFactorReader:
    """Load the reader saved at `path`. If there is none, train one and save it there."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        trained = train_factor_reader(steps=steps, seed=seed)
        save_file(trained.state_dict(), path, metadata={"judge": json.dumps({"steps": steps, "seed": seed})})
    reader = WorldFactorReader()
    reader.load_state_dict({name: tensor.to(_dtype(tensor)) for name, tensor in load_file(path).items()})
    return reader.eval()
