"""The interface of layouts, and the records they use."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from cliplens.errors import InputError

_WRAPPERS = ("state_dict", "model_state_dict", "model", "sae", "autoencoder", "weights")
_PREFIXES = ("module.", "_orig_mod.", "sae.", "autoencoder.", "model.", "ae.")


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint, and its configuration."""

    path: Path
    content: Mapping[str, Any]
    """Tensors, numbers, strings and nested mappings, by name."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """Configuration from a file next to it, a header before it or an object within it, as plain values."""
    read: set[str] = field(default_factory=set)
    """Names that a layout has read from it."""

    @cached_property
    def state(self) -> Mapping[str, Any]:
        """The state dict, without containers (`state_dict`, `model`) and wrapper prefixes (`module.`)."""
        state = self.content
        for _ in range(3):
            inner = next((state[n] for n in _WRAPPERS if isinstance(state.get(n), Mapping)), None)
            if inner is None or _matrices(state):
                break
            state = inner
        return Noting(_without_prefixes(state), self.read)


class Noting(dict[str, Any]):
    """A dict that notes which of its names are read."""

    def __init__(self, content: Mapping[str, Any], into: set[str]) -> None:
        super().__init__(content)
        self.into = into

    def __getitem__(self, name: str) -> Any:
        self.into.add(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        """Return an entry, and note its name."""
        self.into.add(name)
        return super().get(name, default)


@dataclass(frozen=True)
class SaeSpec:
    """A dictionary in SAELens' terms."""

    architecture: str
    tensors: Mapping[str, Tensor]
    config: Mapping[str, Any] = field(default_factory=dict)
    """Fields of SAELens' inference config other than the sizes."""
    hook_name: str | None = None
    model_name: str | None = None


class ForeignLayout(ABC):
    """The file layout of the dictionaries of one project."""

    name: ClassVar[str]

    @abstractmethod
    def recognises(self, checkpoint: Checkpoint) -> bool:
        """Return whether the checkpoint has this layout, by the names of its tensors and configuration entries."""

    @abstractmethod
    def to_spec(self, checkpoint: Checkpoint) -> SaeSpec:
        """Return the dictionary of a checkpoint.

        Raises:
            InputError: no SAELens architecture is equal to it, or its activation is not defined.
        """


def unsupported(layout: str, feature: str) -> InputError:
    """Return the error for a dictionary that no SAELens architecture is equal to."""
    return InputError(
        expected=f"a {layout} dictionary that is equal to a SAELens architecture",
        found=feature,
        fix="use it with its authors' code, or write an SAE class and register it with SAELens",
    )


def _matrices(state: Mapping[str, Any]) -> bool:
    return any(isinstance(value, Tensor) and value.ndim == 2 for value in state.values())


def _without_prefixes(state: Mapping[str, Any]) -> Mapping[str, Any]:
    for _ in range(3):
        prefix = next((p for p in _PREFIXES if state and all(str(name).startswith(p) for name in state)), None)
        if prefix is None:
            break
        state = {str(name).removeprefix(prefix): value for name, value in state.items()}
    return state
