"""A small image encoder and its adapter, as somebody outside would write them: sixty lines for all hooks."""

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
    identity_of,
    point,
)

D, HEADS, SIDE, PATCH = 32, 2, 16, 8


class StrangerBlock(nn.Module):
    """A residual block."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(D), nn.LayerNorm(D)
        self.attention = nn.MultiheadAttention(D, HEADS, batch_first=True)
        self.feed = nn.Sequential(nn.Linear(D, 2 * D), nn.ReLU(), nn.Linear(2 * D, D))

    def forward(self, x: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        """The block."""
        y = self.before(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.feed(self.between(x))


class StrangerEncoder(nn.Module):
    """Patches, blocks, mean."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, D, PATCH, PATCH)
        self.place = nn.Parameter(torch.randn((SIDE // PATCH) ** 2, D))
        self.blocks = nn.ModuleList(StrangerBlock() for _ in range(2))
        self.last = nn.LayerNorm(D)

    def forward(self, images: Tensor) -> Tensor:
        """Images to vectors."""
        x = self.patch(images).flatten(2).transpose(1, 2) + self.place
        for block in self.blocks:
            x = block(x)
        return self.last(x).mean(1)


class StrangerTower(Tower):
    """The adapter."""

    family: ClassVar[str] = "stranger"

    def opens(self, model: nn.Module, side: str) -> bool:
        """Only its own encoder."""
        return side == "vision" and isinstance(model, StrangerEncoder)

    def open(self, model: nn.Module, side: str) -> "HookedStranger":
        """The hooked tower."""
        return HookedStranger(model).train(model.training)


class HookedStranger(HookedVisionTower):
    """A hooked `StrangerEncoder`."""

    def __init__(self, stock: Any) -> None:
        n_ctx = (SIDE // PATCH) ** 2
        cfg = TowerConfig("", "vision", "stranger", D, 2, HEADS, D // HEADS, 2 * D, n_ctx, D, image_size=(SIDE, SIDE))
        super().__init__(stock, cfg)
        self.n_special = 0
        self.blocks = nn.ModuleList(_block(b) for b in stock.blocks)
        self.ln_final = HookedLayerNorm(stock.last, D)
        self.hook_pooled = point(D)
        self.setup()

    @property
    def input_dtype(self) -> torch.dtype:
        """The dtype of its weights."""
        return self.stock.patch.weight.dtype

    def run_stock(self, inputs: Tensor) -> Tensor:
        """The encoder itself."""
        return self.stock(inputs)

    def embed(self, inputs: Tensor) -> tuple[Tensor, Mapping[str, Any]]:
        """Patches and places."""
        x = self.hook_embed(self.hook_patch_embed(self.stock.patch(inputs).flatten(2).transpose(1, 2)))
        return x + self.hook_pos_embed(self.stock.place.expand(len(x), -1, -1).clone()), {"attn_mask": None}

    def pool(self, stream: Tensor, inputs: Tensor) -> Tensor:
        """The mean."""
        return self.ln_final(stream).mean(1)

    def project(self, pooled: Tensor) -> Tensor:
        """Nothing."""
        return pooled


def _block(stock: Any) -> HookedBlock:
    attn = PackedAttention(stock.attention, d_model=D, n_heads=HEADS, d_head=D // HEADS)
    mlp = HookedMLP(stock.feed, stock.feed[0], stock.feed[1], stock.feed[2], d_model=D, d_mlp=2 * D)
    return HookedBlock(stock, HookedLayerNorm(stock.before, D), attn, HookedLayerNorm(stock.between, D), mlp, d_model=D)


class StrangerModels(ModelSource):
    """Knows one name."""

    def models(self) -> list[ModelCard]:
        """That name."""
        return [ModelCard("stranger", (), "stranger", "", "heads", None)]

    def knows(self, name: str) -> bool:
        """That name."""
        return name == "stranger"

    def load(self, name: str, pretrained: str | None, *, device: torch.device, dtype: torch.dtype) -> LoadedModel:
        """A new encoder."""
        loaded = self.adopt(StrangerEncoder().eval())
        assert loaded is not None
        loaded.module.to(device=device, dtype=dtype)
        return loaded

    def adopt(self, model: nn.Module) -> LoadedModel | None:
        """Its own encoder."""
        if not isinstance(model, StrangerEncoder):
            return None
        identity = identity_of(model, name="stranger", pretrained=None, preprocess=None, tokenizer=None)
        return LoadedModel(model, None, None, identity)
