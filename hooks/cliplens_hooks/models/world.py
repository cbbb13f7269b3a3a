"""Load the embedded models, `load("world")` and `load("world-plain")`. They are stock open_clip models."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import open_clip
import torch
from jaxtyping import Float, UInt8
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor, nn

from cliplens.contracts import LoadedModel, ModelCard, ModelSource
from cliplens.errors import InputError, unknown_name
from cliplens.hooked import identity_of
from cliplens.world import SIDE
from cliplens.world.assets import ASSETS, MERGES
from cliplens_hooks.models.open_clip import describe, preprocess_of, text_family, vision_family

NAMES = ("world", "world-plain")
CONTEXT = 20
"""Context length in tokens, start and end included."""


@dataclass(frozen=True)
class Preprocess:
    """Preprocessing of pictures: side in pixels, mean and standard deviation per channel."""

    side: int = SIDE
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.25, 0.25, 0.25)


PREPROCESS = Preprocess()


class WorldModels(ModelSource):
    """Loads the model trained to keep single-modality factors, and its twin with the plain contrastive loss."""

    def models(self) -> Sequence[ModelCard]:
        """Return both models."""
        (vision, vision_level), (text, text_level) = vision_family({"layers": 3}), text_family({})
        return [ModelCard(name, (), vision, text, vision_level, text_level) for name in NAMES]

    def knows(self, name: str) -> bool:
        """Return whether it is one of the two names."""
        return name in NAMES

    def load(self, name: str, pretrained: str | None, *, device: torch.device, dtype: torch.dtype) -> LoadedModel:
        """Load the model with open_clip's preprocess, and open_clip's tokenizer with the merges of the captions.

        Raises:
            UnknownNameError: the name is neither of the two.
            InputError: `pretrained` is set; the embedded models have their own weights.
        """
        if name not in NAMES:
            raise unknown_name("embedded model", name, NAMES)
        if pretrained is not None:
            raise InputError(
                expected=f"no `pretrained` beside {name!r}, which brings its own weights",
                found=f"pretrained={pretrained!r}",
                fix="leave `pretrained` out",
            )
        model = open_clip.create_model(f"local-dir:{ASSETS / name}", precision="fp32", device="cpu").eval()
        tokenizer = world_tokenizer()
        cfg = model.visual.preprocess_cfg
        identity = identity_of(model, name=name, pretrained=None, preprocess=describe(cfg), tokenizer=tokenizer)
        return LoadedModel(model.to(device=device, dtype=dtype), preprocess_of(cfg), tokenizer, identity)

    def trained_on(self, name: str) -> str:
        """Return what it saw."""
        return "pictures and captions that a program makes (docs/world.md)"

    def adopt(self, model: nn.Module) -> LoadedModel | None:
        """Return None: an object of an embedded model is an ordinary open_clip model."""
        return None


def world_tokenizer() -> SimpleTokenizer:
    """Return open_clip's tokenizer with the merges of the captions."""
    return SimpleTokenizer(str(MERGES), context_length=CONTEXT)


def pixels_to_tensor(pixels: UInt8[np.ndarray, "batch height width 3"]) -> Float[Tensor, "batch 3 height width"]:
    """Return pictures of the model's size as inputs, equal to those of its preprocess."""
    channels = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous().to(torch.float32).div_(255)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (PREPROCESS.mean, PREPROCESS.std))
    return channels.sub_(mean).div_(std)
