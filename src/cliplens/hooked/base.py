"""The abstract surface of a tower, as caches, splices, banks and frozen heads see it.

It stands below them so that none of their files has to import the tower that is made of them.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor, nn

from cliplens.contracts import HookLevel
from cliplens.hooked.config import TowerConfig
from cliplens.hooked.root import HookedRoot
from cliplens.hooked.splice import Splice

Inputs = Tensor | str | Image.Image | Sequence[str] | Sequence[Image.Image]
"""Preprocessed images or pictures for a vision tower, token ids or captions for a text tower."""


class AbstractTower(HookedRoot):
    """One encoder with hooks: its measures, its steps from inputs to embedding, the dictionaries spliced into it."""

    stock: nn.Module
    level: HookLevel = "heads"
    """How deep the hooks go: every head, every block, or the outputs of stages."""
    stack_name: str = "blocks"
    """Name of the layers in the module tree and in hook names."""
    adds_pos_embed: bool = True
    """Whether hook_embed + hook_pos_embed is the stream that enters block 0."""
    n_special: int = 1
    """Leading positions of a vision tower that are no patches (class token, registers); unused for text."""

    @property
    @abstractmethod
    def cfg(self) -> TowerConfig:
        """Return the measures of the tower, with the device and dtype its weights have now."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Return the device of the weights."""

    @property
    @abstractmethod
    def input_dtype(self) -> torch.dtype:
        """Return the dtype of the residual stream."""

    @abstractmethod
    def run_stock(self, inputs: Tensor) -> Float[Tensor, "batch *pos d_embed"]:
        """Run the stock encoder's own forward pass."""

    @abstractmethod
    def run_hooked(self, inputs: Tensor) -> Float[Tensor, "batch *pos d_embed"]:
        """Run the forward pass that hooks can see, whether or not there are any."""

    @abstractmethod
    def evaluating(self) -> AbstractContextManager[None]:
        """Put the stock encoder into eval mode for a block, and give it its own mode back."""

    @abstractmethod
    def checked(self, inputs: Inputs) -> Tensor:
        """Return the inputs on the device of the weights, or raise an error that says what was expected."""

    @abstractmethod
    def embed(self, inputs: Tensor) -> tuple[Float[Tensor, "batch pos d_model"], Mapping[str, Any]]:
        """Return the stream that enters block 0, and the keyword arguments every stock block takes beside it."""

    @abstractmethod
    def pool(self, stream: Float[Tensor, "batch pos d_model"], inputs: Tensor) -> Float[Tensor, "batch *pos d_pool"]:
        """Reduce the last block's stream to one vector per sample, final norm included."""

    @abstractmethod
    def project(self, pooled: Float[Tensor, "batch *pos d_pool"]) -> Float[Tensor, "batch *pos d_embed"]:
        """Map the pooled vector into the space both towers share."""

    @abstractmethod
    def encode(self, inputs: Inputs) -> tuple[Float[Tensor, "batch *pos d_embed"], Float[Tensor, "batch *pos d_embed"]]:
        """Return the output as it is, and brought to unit length."""

    @abstractmethod
    def special_position(self, inputs: Tensor) -> Int[Tensor, " batch"]:
        """Return the position that stands for the whole sample."""

    @abstractmethod
    def width(self, hook: str) -> int:
        """Return the width of one row at the hook, heads side by side."""

    @property
    @abstractmethod
    def splices(self) -> dict[str, Splice]:
        """Return the splices that are in place, by the name of the hook each one writes."""

    @abstractmethod
    def put_splice(self, hook: str, splice: Splice | None) -> None:
        """Put a splice at a hook in the place of the one that is there; None only removes."""
