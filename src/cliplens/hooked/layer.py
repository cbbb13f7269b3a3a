"""Layers with hooks on their input and output only."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor, nn

from cliplens.hooked.part import HookedPart, active, borrow, hook_point

MapLayout = Literal["NCHW", "NHWC"]


class HookedLayer(HookedPart):
    """A transformer block with hooks on input and output: `hook_resid_pre` and `hook_resid_post` [batch, pos, d]."""

    run: Callable[[Tensor, Mapping[str, Any]], Tensor]

    def __init__(self, run: Callable[[Tensor, Mapping[str, Any]], Tensor], d_model: int) -> None:
        super().__init__()
        borrow(self, run=run)
        self.hook_resid_pre, self.hook_resid_post = hook_point(d_model), hook_point(d_model)

    def forward(self, x: Float[Tensor, "batch pos d"], context: Mapping[str, Any]) -> Float[Tensor, "batch pos d"]:
        """Run the stock block between its two hooks."""
        return self.hook_resid_post(self.run(self.hook_resid_pre(x), context))


class HookedStage(HookedPart):
    """A stage of a convolutional or windowed tower: `hook_out` is its output as [batch, height * width, channels]."""

    stock: nn.Module

    def __init__(self, stock: nn.Module, width: int, layout: MapLayout) -> None:
        super().__init__()
        borrow(self, stock=stock)
        self.hook_out = hook_point(width)
        self.layout = layout

    def forward(self, x: Float[Tensor, "batch a b c"], context: Mapping[str, Any]) -> Tensor:
        """Run the stock stage; input and output keep its layout."""
        x = self.stock(x)
        if not active(self.hook_out):
            return x
        out = self.hook_out(as_rows(x, self.layout))
        if self.layout == "NHWC":
            return out.view_as(x)
        return out.transpose(1, 2).reshape(x.shape).contiguous()


def as_rows(x: Float[Tensor, "batch a b c"], layout: MapLayout) -> Float[Tensor, "batch pos channel"]:
    """Return a feature map with height and width as one axis of positions."""
    return x.flatten(1, 2) if layout == "NHWC" else x.flatten(2).transpose(1, 2).contiguous()
