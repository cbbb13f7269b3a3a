"""Load towers by name in SAELens' model loading, for configs that are run without a model object.

SAELens has no extension point for models. `install` wraps its loading function in the three modules that use it;
importing cliplens changes nothing.
"""

import importlib
from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import nn

from cliplens.errors import InputError, unknown_name
from cliplens.hooked import HookedCLIP, HookedTower
from cliplens.sites import SIDES, Side

_HOLDERS = (
    "sae_lens.load_model",
    "sae_lens.llm_sae_training_runner",
    "sae_lens.multi_sae_training_runner",
    "sae_lens.cache_activations_runner",
)
_CLASS = "HookedCLIP"

LoadCLIP = Callable[..., HookedCLIP]


def install(load: LoadCLIP) -> None:
    """Let SAELens load towers with `model_class_name="HookedCLIP.vision"` or `"HookedCLIP.text"`.

    With `"HookedCLIP"`, the tower is set by `model_from_pretrained_kwargs={"tower": "vision"}`. `model_name` is a name
    for `cliplens.load`, with the pretrained tag after an "@": "ViT-B-32@laion2b_s34b_b79k". Installing twice has no
    further effect.

    Args:
        load: `cliplens.load`.
    """
    for name in _HOLDERS:
        holder = importlib.import_module(name)
        stock = holder.load_model
        if not hasattr(stock, "stock"):
            holder.load_model = _wrapped(stock, load)  # type: ignore[attr-defined]


def uninstall() -> None:
    """Restore SAELens' own model loading."""
    for name in _HOLDERS:
        holder = importlib.import_module(name)
        holder.load_model = getattr(holder.load_model, "stock", holder.load_model)  # type: ignore[attr-defined]


def _wrapped(stock: Callable[..., nn.Module], load: LoadCLIP) -> Callable[..., nn.Module]:
    @wraps(stock)
    def load_model(
        model_class_name: str,
        model_name: str,
        device: str | torch.device | None = None,
        model_from_pretrained_kwargs: dict[str, Any] | None = None,
        hook_names: list[str] | None = None,
    ) -> nn.Module:
        options = dict(model_from_pretrained_kwargs or {})
        if model_class_name.partition(".")[0] != _CLASS:
            return stock(model_class_name, model_name, device, model_from_pretrained_kwargs, hook_names)
        side = _side(model_class_name, options)
        name, _, tag = model_name.partition("@")
        clip = load(name, tag or options.pop("pretrained", None), device=device, **options)
        return tower_on(clip, side)

    load_model.stock = stock  # type: ignore[attr-defined]
    return load_model


def _side(model_class_name: str, options: dict[str, Any]) -> Side:
    asked = model_class_name.partition(".")[2] or options.pop("tower", None)
    for side in SIDES:
        if asked == side:
            return side
    raise unknown_name("tower", str(asked), SIDES)


def tower_on(clip: HookedCLIP, side: Side) -> HookedTower:
    """Return one tower of the model.

    Raises:
        InputError: the model has no such tower.
    """
    tower = clip.vision if side == "vision" else clip.text
    if tower is None:
        raise InputError(
            expected=f"a model with a {side} tower",
            found=f"{clip.identity.name}, which has no {side} tower",
            fix="choose the vision tower",
        )
    return tower
