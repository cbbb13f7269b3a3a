"""Helpers of training classes for paired batches: first all images, then their captions in the same order."""

from typing import Any, ClassVar

from jaxtyping import Float
from sae_lens.registry import (
    SAE_CLASS_REGISTRY,
    SAE_TRAINING_CLASS_REGISTRY,
    register_sae_class,
    register_sae_training_class,
)
from torch import Tensor

from cliplens.errors import InputError


class NeedsPairs:
    """Mixin for training configs whose batches must hold whole pairs."""

    needs_pairs: ClassVar[bool] = True


def needs_pairs(architecture: str) -> bool:
    """Return whether an architecture trains on whole pairs, that is, needs a provider with `paired=True`."""
    known = SAE_TRAINING_CLASS_REGISTRY.get(architecture)
    return known is not None and issubclass(known[1], NeedsPairs)


def halves(rows: Float[Tensor, "batch d"]) -> tuple[Float[Tensor, "pair d"], Float[Tensor, "pair d"]]:
    """Return the rows of images and the rows of captions of a paired batch.

    Raises:
        InputError: the number of rows is odd.
    """
    if len(rows) % 2:
        raise InputError(
            expected="a paired batch: all images, then their captions",
            found=f"{len(rows)} rows",
            fix="make the provider with paired=True and an even batch_size",
        )
    middle = len(rows) // 2
    return rows[:middle], rows[middle:]


def register_training(architecture: str, sae: type[Any], config: type[Any]) -> None:
    """Register a training class with SAELens, once."""
    if architecture not in SAE_TRAINING_CLASS_REGISTRY:
        register_sae_training_class(architecture, sae, config)


def register_inference(architecture: str, sae: type[Any], config: type[Any]) -> None:
    """Register an inference class with SAELens, once."""
    if architecture not in SAE_CLASS_REGISTRY:
        register_sae_class(architecture, sae, config)
