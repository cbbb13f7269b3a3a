"""Towers over timm's `VisionTransformer`: SigLIP 1 and 2, ViTamin, MobileCLIP-B, DINO and plain ViTs."""

from collections.abc import Mapping
from typing import Any, ClassVar

from timm.models.vision_transformer import Attention, Block, VisionTransformer
from torch import Tensor, nn

from cliplens.contracts import Tower
from cliplens.hooked import HookedBlock, HookedTower
from cliplens.shapes import Images
from cliplens.sites import Side
from cliplens_hooks.towers.timm_block import timm_block
from cliplens_hooks.towers.timm_parts import TimmTransformer, stock_of, trunk_of


class TimmViTTower(Tower):
    """Opens `timm.models.vision_transformer.VisionTransformer` with timm's plain blocks."""

    family: ClassVar[str] = "timm VisionTransformer"

    def opens(self, model: nn.Module, side: Side) -> bool:
        """Return whether the image side is such a model."""
        trunk: Any = trunk_of(stock_of(model))
        return (
            side == "vision"
            and type(trunk) is VisionTransformer
            and all(type(b) is Block and type(b.attn) is Attention for b in trunk.blocks)
        )

    def open(self, model: nn.Module, side: Side) -> HookedTower:
        """Return the hooked tower."""
        return TimmViT(stock_of(model))


class TimmViT(TimmTransformer):
    """A hooked `VisionTransformer`."""

    def __init__(self, stock: nn.Module) -> None:
        trunk: Any = trunk_of(stock)
        super().__init__(stock, TimmViTTower.family, [_block(b, trunk.embed_dim) for b in trunk.blocks])

    def embed(self, inputs: Images) -> tuple[Tensor, Mapping[str, Any]]:
        """Compute patch embeddings, add special tokens and positions, apply patch dropout and the norm."""
        x = self.trunk.patch_drop(self.with_positions(self.patches(inputs)))
        return self.before_blocks(x), {}


def _block(stock: Any, d: int) -> HookedBlock:
    return timm_block(stock, d, (lambda: getattr(stock.ls1, "gamma", None), lambda: getattr(stock.ls2, "gamma", None)))
