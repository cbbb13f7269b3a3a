"""Load the embedded model of real drawings, `load("emoji")`. It is a stock open_clip model."""

import os
from collections.abc import Sequence
from pathlib import Path

import open_clip
import torch
from open_clip.tokenizer import SimpleTokenizer
from torch import nn

from cliplens.contracts import LoadedModel, ModelCard, ModelSource
from cliplens.errors import InputError, unknown_name
from cliplens.hooked import identity_of
from cliplens_hooks.assets import ASSETS, MERGES
from cliplens_hooks.models.open_clip import describe, preprocess_of, text_family, vision_family

NAME = "emoji"
TWINS = ("emoji-seed1", "emoji-seed2", "emoji-plain")
"""Twins that are made on demand: other seeds, and the plain contrastive loss."""
CONTEXT = 48
"""Context length in tokens, start and end included."""
SIDE = 64
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
TRAINED_LANGUAGES = ("en", "de", "fr", "es", "pt", "ru", "el", "tr", "ar", "he", "th", "zh", "ja", "ko", "vi")
"""The fifteen languages of the captions. The other six of the table are never trained on."""


def twin_folder(name: str) -> Path:
    """Return the folder in which a twin lies once it is made: below CLIPLENS_CACHE, by default ~/.cache/cliplens."""
    return Path(os.environ.get("CLIPLENS_CACHE", "~/.cache/cliplens")).expanduser() / name


class EmojiModels(ModelSource):
    """Loads the model trained on drawings of three artists and names in fifteen languages, and its twins."""

    def models(self) -> Sequence[ModelCard]:
        """Return the model and its twins."""
        (vision, vision_level), (text, text_level) = vision_family({"layers": 4}), text_family({})
        return [ModelCard(name, (), vision, text, vision_level, text_level) for name in (NAME, *TWINS)]

    def knows(self, name: str) -> bool:
        """Return whether it is one of the names."""
        return name == NAME or name in TWINS

    def load(self, name: str, pretrained: str | None, *, device: torch.device, dtype: torch.dtype) -> LoadedModel:
        """Load the model with open_clip's preprocess, and open_clip's tokenizer with its own merges.

        Raises:
            UnknownNameError: the name is none of these.
            InputError: `pretrained` is set, or a twin has not been made yet.
        """
        if not self.knows(name):
            raise unknown_name("embedded model", name, (NAME, *TWINS))
        if pretrained is not None:
            raise InputError(
                expected=f"no `pretrained` beside {name!r}, which brings its own weights",
                found=f"pretrained={pretrained!r}",
                fix="leave `pretrained` out",
            )
        folder = ASSETS / name if name == NAME else twin_folder(name)
        if not (folder / "open_clip_model.safetensors").is_file():
            raise InputError(
                expected=f"the twin {name!r} in {folder}",
                found="nothing there: twins are made on demand",
                fix=f"run python -m cliplens_hooks.training.emoji {name.removeprefix('emoji-')}, "
                "which takes some minutes and needs CLIPLENS_DATA",
            )
        model = open_clip.create_model(f"local-dir:{folder}", precision="fp32", device="cpu").eval()
        tokenizer = emoji_tokenizer()
        cfg = model.visual.preprocess_cfg
        identity = identity_of(model, name=name, pretrained=None, preprocess=describe(cfg), tokenizer=tokenizer)
        return LoadedModel(model.to(device=device, dtype=dtype), preprocess_of(cfg), tokenizer, identity)

    def trained_on(self, name: str) -> str:
        """Return what it saw."""
        return "drawings of emoji and their names (docs/emoji.md)"

    def adopt(self, model: nn.Module) -> LoadedModel | None:
        """Return None: an object of this model is an ordinary open_clip model."""
        return None


def emoji_tokenizer() -> SimpleTokenizer:
    """Return open_clip's tokenizer with the merges of the names."""
    return SimpleTokenizer(str(MERGES), context_length=CONTEXT)
