"""Towers over timm's `VisionTransformer`: SigLIP 1 and 2, ViTamin, MobileCLIP-B, DINO and plain ViTs."""

from collections.abc import Mapping
from typing import Any, ClassVar

from timm.models.vision_transformer import Attention, Block, VisionTransformer
from torch import Tensor, nn

from cliplens.contracts import Tower
from cliplens.hooked import HookedBlock, HookedTower
from cliplens.sites import Side
from cliplens_hooks.towers.timm_parts import (
    TimmAttention,
    TimmTransformer,
    hooked_mlp,
    present,
    stock_of,
    timm_config,
    timm_norm,
    trunk_of,
)


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
        blocks = [_block(b, trunk.embed_dim) for b in trunk.blocks]
        super().__init__(stock, timm_config(stock, TimmViTTower.family, blocks[0].mlp.hook_post.width))
        self.blocks = nn.ModuleList(blocks)
        self.open_ends(trunk)
        self.setup()

    def embed(self, inputs: Tensor) -> tuple[Tensor, Mapping[str, Any]]:
        """Compute patch embeddings, add special tokens and positions, apply patch dropout and the norm."""
        x = self.trunk.patch_drop(self.with_positions(self.patches(inputs)))
        return self.before_blocks(x), {}


def _block(stock: Any, d: int) -> HookedBlock:
    return HookedBlock(
        stock,
        timm_norm(stock.norm1, d),
        TimmAttention(stock.attn, d, layer_scale=lambda: getattr(stock.ls1, "gamma", None)),
        timm_norm(stock.norm2, d),
        hooked_mlp(stock.mlp, d, layer_scale=lambda: getattr(stock.ls2, "gamma", None)),
        d_model=d,
        drops=(present(stock.drop_path1), present(stock.drop_path2)),
    )
