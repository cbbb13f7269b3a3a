"""What a layout of checkpoints has to say: whether it knows a file, and which SAELens dictionary the file means."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from cliplens.errors import InputError


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as it was read: tensors, and what its authors noted beside them."""

    path: Path
    content: Mapping[str, Any]
    """The checkpoint itself: names to tensors, numbers and further mappings."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """A config.json beside it, a header before it, or a pickled config within it, as plain names and values."""


@dataclass(frozen=True)
class SaeSpec:
    """The same dictionary in SAELens' words."""

    architecture: str
    tensors: Mapping[str, Tensor]
    config: Mapping[str, Any] = field(default_factory=dict)
    """Fields of SAELens' inference config beside the sizes."""
    hook_name: str | None = None
    model_name: str | None = None


class ForeignLayout(ABC):
    """One project's way to write dictionaries."""

    name: ClassVar[str]

    @abstractmethod
    def recognises(self, checkpoint: Checkpoint) -> bool:
        """Whether the checkpoint is of this layout, told from the names of its tensors alone."""

    @abstractmethod
    def to_spec(self, checkpoint: Checkpoint) -> SaeSpec:
        """The dictionary it holds.

        Raises:
            InputError: it computes something no SAELens architecture computes.
        """


def unsupported(layout: str, what: str) -> InputError:
    """The refusal of a dictionary no SAELens architecture equals."""
    return InputError(
        expected=f"a {layout} dictionary that some SAELens architecture equals",
        found=what,
        fix="keep using it with its authors' code, or write an SAE class and register it with SAELens",
    )
