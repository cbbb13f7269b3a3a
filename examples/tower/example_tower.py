"""A small image encoder and the adapter that gives it every hook.

`ExampleTower` opens the encoder as a hooked tower; `ExampleModels` finds the model by name, so that
`cliplens.load("example")` and `cliplens run --model example` work.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from cliplens.contracts import LoadedModel, ModelCard, ModelSource, Tower
from cliplens.hooked import (
    HookedBlock,
    HookedLayerNorm,
    HookedMLP,
    HookedVisionTower,
    PackedAttention,
    TowerConfig,
    hook_point,
    identity_of,
)

D, HEADS, SIDE, PATCH = 32, 2, 16, 8


class ExampleBlock(nn.Module):
    """A residual block: attention, then an MLP, each after a layer norm."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(D), nn.LayerNorm(D)
        self.attention = nn.MultiheadAttention(D, HEADS, batch_first=True)
        self.feed = nn.Sequential(nn.Linear(D, 2 * D), nn.ReLU(), nn.Linear(2 * D, D))

    def forward(self, x: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        """Apply the block to [batch, position, D]."""
        y = self.before(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.feed(self.between(x))


class ExampleEncoder(nn.Module):
    """An encoder that embeds patches, applies two blocks, and returns the mean over positions."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, D, PATCH, PATCH)
        self.place = nn.Parameter(torch.randn((SIDE // PATCH) ** 2, D))
        self.blocks = nn.ModuleList(ExampleBlock() for _ in range(2))
        self.last = nn.LayerNorm(D)

    def forward(self, images: Tensor) -> Tensor:
        """Map images [batch, 3, SIDE, SIDE] to embeddings [batch, D]."""
        x = self.patch(images).flatten(2).transpose(1, 2) + self.place
        for block in self.blocks:
            x = block(x)
        return self.last(x).mean(1)


class ExampleTower(Tower):
    """Opens an `ExampleEncoder` as a hooked tower."""

    family: ClassVar[str] = "example"

    def opens(self, model: nn.Module, side: str) -> bool:
        """Return whether this adapter can open the model; if not, other adapters are tried."""
        return side == "vision" and isinstance(model, ExampleEncoder)

    def open(self, model: nn.Module, side: str) -> "HookedExample":
        """Return the hooked tower. It shares the weights of the model."""
        return HookedExample(model)


class HookedExample(HookedVisionTower):
    """The hooked form of an `ExampleEncoder`: the parts of the stock module, each in its hooked wrapper."""

    def __init__(self, stock: Any) -> None:
        n_ctx = (SIDE // PATCH) ** 2
        cfg = TowerConfig("", "vision", "example", D, 2, HEADS, D // HEADS, 2 * D, n_ctx, D, image_size=(SIDE, SIDE))
        super().__init__(stock, cfg)
        self.n_special = 0
        self.blocks = nn.ModuleList(_block(b) for b in stock.blocks)
        self.ln_final = HookedLayerNorm(stock.last, D)
        self.hook_pooled = hook_point(D)
        self.setup()

    @property
    def input_dtype(self) -> torch.dtype:
        """Return the dtype of the input images."""
        return self.stock.patch.weight.dtype

    def run_stock(self, inputs: Tensor) -> Tensor:
        """Run the stock model; this is used if nothing is hooked."""
        return self.stock(inputs)

    def embed(self, inputs: Tensor) -> tuple[Tensor, Mapping[str, Any]]:
        """Return the residual stream before the first block, and the other arguments of every block."""
        x = self.hook_embed(self.hook_patch_embed(self.stock.patch(inputs).flatten(2).transpose(1, 2)))
        return x + self.hook_pos_embed(self.stock.place.expand(len(x), -1, -1).clone()), {"attn_mask": None}

    def pool(self, stream: Tensor, inputs: Tensor) -> Tensor:
        """Return the pooled output of the last block."""
        return self.ln_final(stream).mean(1)

    def project(self, pooled: Tensor) -> Tensor:
        """Map the pooled output to the embedding. This model has no projection."""
        return pooled


def _block(stock: Any) -> HookedBlock:
    attn = PackedAttention(stock.attention, d_model=D, n_heads=HEADS, d_head=D // HEADS)
    mlp = HookedMLP(stock.feed, stock.feed[0], stock.feed[1], stock.feed[2], d_model=D, d_mlp=2 * D)
    return HookedBlock(stock, HookedLayerNorm(stock.before, D), attn, HookedLayerNorm(stock.between, D), mlp, d_model=D)


class ExampleModels(ModelSource):
    """Finds the encoder by the name "example"."""

    def models(self) -> list[ModelCard]:
        """Return the models that this source can load."""
        return [ModelCard("example", (), "example", "", "heads", None)]

    def knows(self, name: str) -> bool:
        """Return whether `load` accepts this name."""
        return name == "example"

    def load(self, name: str, pretrained: str | None, *, device: torch.device, dtype: torch.dtype) -> LoadedModel:
        """Return a new encoder with random weights."""
        loaded = self.adopt(ExampleEncoder().eval())
        assert loaded is not None
        loaded.module.to(device=device, dtype=dtype)
        return loaded

    def adopt(self, model: nn.Module) -> LoadedModel | None:
        """Return a user's model for hooking; None for a model of another family."""
        if not isinstance(model, ExampleEncoder):
            return None
        identity = identity_of(model, name="example", pretrained=None, preprocess=None, tokenizer=None)
        return LoadedModel(model, None, None, identity)
