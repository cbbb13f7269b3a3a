"""Open timm's transformers as vision-only models: by name (`timm:vit_small_patch14_dinov2`) or as objects.

As with open_clip's names, `pretrained=None` gives random weights. A tag of timm downloads weights.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path

import timm
import torch
from timm.data import create_transform, resolve_model_data_config
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from cliplens.contracts import LoadedModel, ModelCard, ModelSource
from cliplens.errors import InputError, MismatchError, unknown_name
from cliplens.hooked import description, identity_of
from cliplens_hooks.models.checkpoints import check_floating, read_tensors

PREFIX = "timm:"
MODULES = ("vision_transformer", "eva")
RANDOM = "random"


class TimmModels(ModelSource):
    """Loads timm's `VisionTransformer` and `Eva` models, such as DINO. They have no text tower and no logits."""

    def models(self) -> Sequence[ModelCard]:
        """Return no models: there are hundreds; `timm.list_models` lists them."""
        return []

    def knows(self, name: str) -> bool:
        """Return whether the name begins with `timm:`."""
        return name.startswith(PREFIX)

    def load(self, name: str, pretrained: str | None, *, device: torch.device, dtype: torch.dtype) -> LoadedModel:
        """Load the model without its classifier.

        Raises:
            UnknownNameError: timm has no transformer of that name, or no such tag.
            InputError: the weights cannot be loaded.
        """
        kind = name.removeprefix(PREFIX)
        known = [n for module in MODULES for n in timm.list_models(module=module)]
        if kind not in known:
            raise unknown_name("timm transformer", kind, known)
        loaded = _complete(_created(kind, pretrained).eval(), name, pretrained)
        loaded.module.to(device=device, dtype=dtype)
        return loaded

    def adopt(self, model: nn.Module) -> LoadedModel | None:
        """Return a timm transformer object."""
        return _complete(model, type(model).__name__, None) if isinstance(model, VisionTransformer | Eva) else None


def _created(kind: str, pretrained: str | None) -> nn.Module:
    if pretrained is None or pretrained == RANDOM:
        if pretrained is None:
            warnings.warn(
                f"{kind} without `pretrained` has random weights; pass a tag or a safetensors file", stacklevel=4
            )
        return timm.create_model(kind, num_classes=0)
    if Path(pretrained).is_file():
        model = timm.create_model(kind, num_classes=0)
        return _filled(model, Path(pretrained))
    tags = [n.partition(".")[2] for n in timm.list_pretrained(f"{kind}.*")]
    if pretrained not in tags:
        raise unknown_name(f"pretrained tag of {kind}", pretrained, [*tags, RANDOM])
    try:
        return timm.create_model(f"{kind}.{pretrained}", pretrained=True, num_classes=0)
    except (OSError, RuntimeError) as error:
        raise InputError(
            expected=f"{kind}.{pretrained} from the hub",
            found=f"{type(error).__name__}: {' '.join(str(error).split())[:200]}",
            fix="check the network, or pass a local safetensors file",
        ) from error


def _filled(model: nn.Module, file: Path) -> nn.Module:
    state = read_tensors(file, model.state_dict())
    check_floating(state, model.state_dict(), file)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise MismatchError(
            expected=f"weights of {type(model).__name__} in {file}",
            found=" ".join(str(error).split())[:300],
            fix="pass the timm name of the architecture of these weights",
        ) from error
    return model


def _complete(model: nn.Module, name: str, pretrained: str | None) -> LoadedModel:
    preprocess = create_transform(**resolve_model_data_config(model), is_training=False)
    identity = identity_of(model, name=name, pretrained=pretrained, preprocess=description(preprocess), tokenizer=None)
    return LoadedModel(model, preprocess, None, identity)
