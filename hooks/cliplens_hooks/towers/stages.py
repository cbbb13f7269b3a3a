"""Convolutional and windowed towers, with hooks on the outputs of stages as [batch, height * width, channels].

ModifiedResNet (OpenAI's RN50 family), and within open_clip's timm wrapper ConvNeXt, FastViT (MobileCLIP) and Swin.
Hooks: `stages.N.hook_out`, `hook_pooled`, `hook_projected`, `hook_embedding`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from timm.models.convnext import ConvNeXt
from timm.models.fastvit import FastVit
from timm.models.swin_transformer import SwinTransformer
from torch import Tensor, nn

from cliplens.contracts import Tower
from cliplens.hooked import (
    HookedStage,
    HookedTower,
    HookedVisionTower,
    MapLayout,
    TowerConfig,
    as_rows,
    hook_point,
)
from cliplens.shapes import Images
from cliplens.sites import Side
from cliplens_hooks.towers.timm_parts import d_embed, stock_of, trunk_of


@dataclass(frozen=True)
class StageSpec:
    """The stages of a tower."""

    stem: Callable[[Tensor], Tensor]
    stages: Sequence[nn.Module]
    widths: Sequence[int]
    reduction: int
    """Pixels of an image per position of the last stage, along one side."""
    pool: Callable[[Tensor], Tensor]
    project: Callable[[Tensor], Tensor]
    d_pool: int
    layout: MapLayout = "NCHW"


class StageTower(Tower):
    """Opens ModifiedResNet, ConvNeXt, FastViT and Swin."""

    family: ClassVar[str] = "stages"

    def opens(self, model: nn.Module, side: Side) -> bool:
        """Return whether the image side is one of these models."""
        return side == "vision" and isinstance(
            trunk_of(stock_of(model)), ModifiedResNet | ConvNeXt | FastVit | SwinTransformer
        )

    def open(self, model: nn.Module, side: Side) -> HookedTower:
        """Return the tower with hooks on its stages."""
        return HookedStages(stock_of(model))


def stage_spec(stock: Any) -> StageSpec:
    """Return the stages of a tower; None for other models."""
    if isinstance(stock, ModifiedResNet):
        layers = [stock.layer1, stock.layer2, stock.layer3, stock.layer4]
        widths = [layer[-1].conv3.out_channels for layer in layers]
        return StageSpec(stock.stem, layers, widths, 32, stock.attnpool, lambda x: x, stock.output_dim)
    trunk: Any = trunk_of(stock)
    info = trunk.feature_info
    stem, stages, after = _cuts(trunk)
    return StageSpec(
        stem,
        list(stages),
        [stage["num_chs"] for stage in info],
        info[-1]["reduction"],
        lambda x: trunk.forward_head(after(x), pre_logits=True),
        lambda x: _headed(stock, trunk, x),
        trunk.head_hidden_size,
        "NHWC" if isinstance(trunk, SwinTransformer) else "NCHW",
    )


def _cuts(trunk: Any) -> tuple[Any, Any, Any]:
    if isinstance(trunk, ConvNeXt):
        return trunk.stem, trunk.stages, trunk.norm_pre
    if isinstance(trunk, FastVit):
        return trunk.stem, trunk.stages, trunk.final_conv
    return trunk.patch_embed, trunk.layers, trunk.norm


def _headed(stock: Any, trunk: Any, pooled: Tensor) -> Tensor:
    x = trunk.head.fc(pooled)
    return stock.head(x) if isinstance(stock, TimmModel) else x


class HookedStages(HookedVisionTower):
    """A tower with hooks on the outputs of its stages."""

    level = "stages"
    stack_name = "stages"
    parts: StageSpec

    def __init__(self, stock: Any) -> None:
        parts = stage_spec(stock)
        super().__init__(stock, _config(stock, parts))
        self.__dict__["parts"] = parts
        self.n_special = 0
        del self.hook_embed, self.hook_pos_embed, self.hook_patch_embed
        self.stages = nn.ModuleList(
            HookedStage(s, w, parts.layout) for s, w in zip(parts.stages, parts.widths, strict=True)
        )
        self.hook_pooled = hook_point(parts.d_pool)
        self.setup()

    @property
    def input_dtype(self) -> torch.dtype:
        """The dtype of the images."""
        return next(self.stock.parameters()).dtype

    def run_stock(self, inputs: Images) -> Tensor:
        """Run the stock tower."""
        return self.stock(inputs)

    def embed(self, inputs: Images) -> tuple[Tensor, Mapping[str, Any]]:
        """Apply the stem."""
        return self.parts.stem(inputs), {}

    def rows(self, stream: Float[Tensor, "batch ..."]) -> Tensor:
        """Return a feature map with height and width as one axis of positions."""
        return as_rows(stream, self.parts.layout)

    def pool(self, stream: Float[Tensor, "batch ..."], inputs: Images) -> Tensor:
        """Apply the tower's pooling."""
        return self.parts.pool(stream)

    def project(self, pooled: Float[Tensor, "batch *pos d_pool"]) -> Tensor:
        """Project into the joint embedding space."""
        return self.parts.project(pooled)


def _config(stock: Any, parts: StageSpec) -> TowerConfig:
    height, width = (
        (stock.image_size, stock.image_size) if isinstance(stock.image_size, int) else tuple(stock.image_size)
    )
    return TowerConfig(
        model_name="",
        side="vision",
        family=type(trunk_of(stock)).__name__,
        d_model=parts.widths[-1],
        n_layers=len(parts.stages),
        n_heads=0,
        d_head=0,
        d_mlp=0,
        n_ctx=max(1, height // parts.reduction) * max(1, width // parts.reduction),
        d_embed=parts.d_pool if isinstance(stock, ModifiedResNet) else d_embed(stock),
        normalization_type=None,
        image_size=(height, width),
    )
