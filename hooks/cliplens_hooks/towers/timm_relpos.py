"""Towers over timm's ViT with relative positions, with hooks at the ends of blocks."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from timm.models.vision_transformer_relpos import VisionTransformerRelPos
from torch import Tensor, nn

from cliplens.contracts import Tower
from cliplens.hooked import HookedLayer, HookedTower, HookedVisionTower, TowerConfig, hook_point
from cliplens.shapes import Images
from cliplens.sites import Side
from cliplens_hooks.towers.timm_block import present, timm_norm
from cliplens_hooks.towers.timm_parts import d_embed, stock_of, trunk_of


class TimmRelPosTower(Tower):
    """Opens `timm.models.vision_transformer_relpos.VisionTransformerRelPos`."""

    family: ClassVar[str] = "timm VisionTransformerRelPos"

    def opens(self, model: nn.Module, side: Side) -> bool:
        """Return whether the image side is such a model."""
        return side == "vision" and isinstance(trunk_of(stock_of(model)), VisionTransformerRelPos)

    def open(self, model: nn.Module, side: Side) -> HookedTower:
        """Return the tower with hooks at the ends of its blocks."""
        return TimmRelPos(stock_of(model))


class TimmRelPos(HookedVisionTower):
    """A hooked `VisionTransformerRelPos`."""

    level = "blocks"
    stock: Any
    trunk: Any

    def __init__(self, stock: Any) -> None:
        trunk: Any = trunk_of(stock)
        super().__init__(stock, _config(stock, trunk))
        self.__dict__["trunk"] = trunk
        self.n_special, self.class_token = trunk.num_prefix_tokens, trunk.cls_token is not None
        del self.hook_pos_embed
        self.blocks = nn.ModuleList(HookedLayer(_run(b), trunk.embed_dim) for b in trunk.blocks)
        norm = present(trunk.norm)
        if norm is not None:
            self.ln_final = timm_norm(norm, trunk.embed_dim)
        self.hook_pooled = hook_point(trunk.embed_dim)
        self.setup()

    @property
    def input_dtype(self) -> torch.dtype:
        """The dtype of the images."""
        return next(self.stock.parameters()).dtype

    def run_stock(self, inputs: Images) -> Tensor:
        """Run the stock tower."""
        return self.stock(inputs)

    def embed(self, inputs: Images) -> tuple[Tensor, Mapping[str, Any]]:
        """Compute patch embeddings and add the class token; return the position bias too, if blocks share one."""
        trunk = self.trunk
        x = self.hook_patch_embed(trunk.patch_embed(inputs))
        if trunk.cls_token is not None:
            x = torch.cat((trunk.cls_token.expand(len(x), -1, -1), x), dim=1)
        shared = trunk.shared_rel_pos
        return self.hook_embed(x), {"shared_rel_pos": None if shared is None else shared.get_bias()}

    def pool(self, stream: Float[Tensor, "batch pos d_model"], inputs: Images) -> Tensor:
        """Apply the norm, then the model's pooling."""
        x = self.ln_final(stream) if present(self.trunk.norm) is not None else stream
        return self.trunk.forward_head(x, pre_logits=True)

    def project(self, pooled: Float[Tensor, "batch *pos d_pool"]) -> Tensor:
        """Apply the head of the timm model, then that of open_clip."""
        x = self.trunk.head(pooled)
        return self.stock.head(x) if self.stock is not self.trunk else x


def _run(block: nn.Module) -> Any:
    return lambda x, context: block(x, **context)


def _config(stock: Any, trunk: Any) -> TowerConfig:
    first = trunk.blocks[0]
    return TowerConfig(
        model_name="",
        side="vision",
        family=TimmRelPosTower.family,
        d_model=trunk.embed_dim,
        n_layers=len(trunk.blocks),
        n_heads=first.attn.num_heads,
        d_head=first.attn.head_dim,
        d_mlp=first.mlp.fc1.out_features,
        n_ctx=trunk.patch_embed.num_patches + trunk.num_prefix_tokens,
        d_embed=d_embed(stock),
        image_size=tuple(trunk.patch_embed.img_size),
    )
