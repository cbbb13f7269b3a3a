"""The embedded models by name: `load("world")` and `load("world-plain")`. Stock open_clip models of our own weights."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor

from cliplens.world.assets import ASSETS, MERGES

CONTEXT = 20
"""Tokens of a caption, start and end included."""


@dataclass(frozen=True)
class Preprocess:
    """How pictures become inputs."""

    side: int = 48
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.25, 0.25, 0.25)


PREPROCESS = Preprocess()


def world_tokenizer() -> SimpleTokenizer:
    """open_clip's tokenizer with the merges the captions need."""
    return SimpleTokenizer(str(MERGES), context_length=CONTEXT)


def pixels_to_tensor(pixels: UInt8[np.ndarray, "batch height width 3"]) -> Float[Tensor, "batch 3 height width"]:
    """Pictures of the model's own size as its inputs; equal to what its preprocess gives one by one."""
    channels = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous().to(torch.float32).div_(255)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (PREPROCESS.mean, PREPROCESS.std))
    return channels.sub_(mean).div_(std)
