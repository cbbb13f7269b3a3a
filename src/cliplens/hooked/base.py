"""The abstract class of a tower, which caches, splices, banks and frozen heads are written against.

Their files import this one; the file of the tower imports theirs. So no import is circular.
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
from cliplens.shapes import TowerInputs

Inputs = Tensor | str | Image.Image | Sequence[str] | Sequence[Image.Image]
"""Preprocessed images or PIL images for a vision tower; token ids or captions for a text tower."""


class AbstractTower(HookedRoot):
    """An encoder with hooks: configuration, the steps from inputs to embedding, and spliced dictionaries."""

    stock: nn.Module
    level: HookLevel = "heads"
    """How deep hooks go: "heads" (inside blocks), "blocks" (their ends) or "stages" (outputs of stages)."""
    stack_name: str = "blocks"
    """Name of the layers in the module tree and in hook names: "blocks" or "stages"."""
    adds_pos_embed: bool = True
    """Whether hook_embed + hook_pos_embed is the stream that enters block 0."""
    n_special: int = 1
    """Number of leading positions of a vision tower that are not patches (class token, registers)."""
    class_token: bool = True
    """Whether the first of the `n_special` positions is a class token. Set False if all of them are registers."""

    @property
    def holder(self) -> nn.Module:
        """Return the module that holds all weights of the encoder: the encoder itself, or the model around it."""
        return self.stock

    @property
    def has_class_token(self) -> bool:
        """Whether position 0 of a vision tower is a class token."""
        return self.n_special > 0 and self.class_token

    @property
    @abstractmethod
    def cfg(self) -> TowerConfig:
        """The configuration of the tower, with the current device and dtype of its weights."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """The device of the weights."""

    @property
    @abstractmethod
    def input_dtype(self) -> torch.dtype:
        """The dtype of the residual stream."""

    @abstractmethod
    def run_stock(self, inputs: TowerInputs) -> Float[Tensor, "batch *pos d_embed"]:
        """Run the stock encoder's own forward pass."""

    @abstractmethod
    def run_hooked(self, inputs: TowerInputs) -> Float[Tensor, "batch *pos d_embed"]:
        """Run the forward pass with hook points, even if no hook is active."""

    @abstractmethod
    def evaluating(self) -> AbstractContextManager[None]:
        """Put the stock encoder into eval mode for the `with` block, then restore its mode."""

    @abstractmethod
    def checked(self, inputs: Inputs) -> Tensor:
        """Return the inputs on the device of the weights; raise InputError if the tower cannot take them."""

    @abstractmethod
    def blank_input(self) -> Tensor:
        """Return one input that fills the context: a black image, or a row of token ids 0."""

    @abstractmethod
    def embed(self, inputs: TowerInputs) -> tuple[Float[Tensor, "batch pos d_model"], Mapping[str, Any]]:
        """Return the stream that enters block 0, and the other keyword arguments of the stock blocks (a mask)."""

    @abstractmethod
    def pool(
        self, stream: Float[Tensor, "batch pos d_model"], inputs: TowerInputs
    ) -> Float[Tensor, "batch *pos d_pool"]:
        """Reduce the stream after the last block to one vector per sample; apply the final norm."""

    @abstractmethod
    def project(self, pooled: Float[Tensor, "batch *pos d_pool"]) -> Float[Tensor, "batch *pos d_embed"]:
        """Map the pooled vector into the joint embedding space."""

    @abstractmethod
    def encode(self, inputs: Inputs) -> tuple[Float[Tensor, "batch *pos d_embed"], Float[Tensor, "batch *pos d_embed"]]:
        """Return the output of the tower, unnormalised and of unit norm."""

    @abstractmethod
    def special_position(self, inputs: TowerInputs) -> Int[Tensor, " batch"]:
        """Return the position that represents each sample: class token or end token."""

    @abstractmethod
    def width(self, hook: str) -> int:
        """Return the width of one row of activations at the hook; heads are concatenated."""

    @property
    @abstractmethod
    def splices(self) -> dict[str, Splice]:
        """The dictionaries spliced in, by the name of the hook that each writes."""

    @abstractmethod
    def put_splice(self, hook: str, splice: Splice | None) -> None:
        """Attach a splice at a hook, in place of the one there; None only detaches."""
