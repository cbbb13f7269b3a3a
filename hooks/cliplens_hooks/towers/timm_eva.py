"""Towers over timm's `Eva`: EVA01, EVA02 and PE-Core, with rotary positions, sub-norms and post-norm."""

from collections.abc import Mapping
from typing import Any, ClassVar

from timm.models.eva import Eva, EvaBlock, EvaBlockPostNorm
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


class TimmEvaTower(Tower):
    """Opens `timm.models.eva.Eva`."""

    family: ClassVar[str] = "timm Eva"

    def opens(self, model: nn.Module, side: Side) -> bool:
        """Return whether the image side is an `Eva` whose blocks share one rotary embedding."""
        trunk = trunk_of(stock_of(model))
        known = EvaBlock | EvaBlockPostNorm
        return (
            side == "vision"
            and isinstance(trunk, Eva)
            and not trunk.rope_mixed
            and all(isinstance(b, known) for b in trunk.blocks)
        )

    def open(self, model: nn.Module, side: Side) -> HookedTower:
        """Return the hooked tower."""
        return TimmEva(stock_of(model))


class TimmEva(TimmTransformer):
    """A hooked `Eva`."""

    def __init__(self, stock: nn.Module) -> None:
        trunk: Any = trunk_of(stock)
        blocks = [_block(b, trunk.embed_dim, trunk.rope is not None) for b in trunk.blocks]
        super().__init__(stock, timm_config(stock, TimmEvaTower.family, blocks[0].mlp.hook_post.width))
        self.blocks = nn.ModuleList(blocks)
        self.open_ends(trunk)
        self.setup()

    def embed(self, inputs: Tensor) -> tuple[Tensor, Mapping[str, Any]]:
        """Return the stream after patches, special tokens, positions and norm, and the rotary embedding."""
        x = self.with_positions(self.patches(inputs))
        return self.before_blocks(x), {"rope": self._rotation()}

    def _rotation(self) -> Tensor | None:
        rope = self.trunk.rope
        if rope is None:
            return None
        fixed = hasattr(rope, "feat_shape") and not self.trunk.dynamic_img_size
        return rope.get_embed() if fixed else rope.get_embed(shape=self.trunk.patch_embed.grid_size)


def _block(stock: Any, d: int, rotary: bool) -> HookedBlock:
    return HookedBlock(
        stock,
        timm_norm(stock.norm1, d),
        TimmAttention(stock.attn, d, layer_scale=lambda: getattr(stock, "gamma_1", None), rotary=rotary),
        timm_norm(stock.norm2, d),
        hooked_mlp(stock.mlp, d, layer_scale=lambda: getattr(stock, "gamma_2", None)),
        d_model=d,
        post_norm=isinstance(stock, EvaBlockPostNorm),
        drops=(present(stock.drop_path1), present(stock.drop_path2)),
    )
