"""Towers over timm's `Eva`: EVA01, EVA02 and PE-Core, with rotary positions, sub-norms and post-norm."""

from collections.abc import Mapping
from typing import Any, ClassVar

from timm.models.eva import Eva, EvaBlock, EvaBlockPostNorm
from torch import Tensor, nn

from cliplens.contracts import Tower
from cliplens.hooked import HookedBlock, HookedTower
from cliplens.shapes import Images
from cliplens.sites import Side
from cliplens_hooks.towers.timm_block import timm_block
from cliplens_hooks.towers.timm_parts import TimmTransformer, stock_of, trunk_of


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
        super().__init__(stock, TimmEvaTower.family, blocks)

    def embed(self, inputs: Images) -> tuple[Tensor, Mapping[str, Any]]:
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
    scales = (lambda: getattr(stock, "gamma_1", None), lambda: getattr(stock, "gamma_2", None))
    return timm_block(stock, d, scales, rotary=rotary, post_norm=isinstance(stock, EvaBlockPostNorm))
