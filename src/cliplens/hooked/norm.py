"""Layer normalisation with hooks on its scale and on the normalised stream."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cliplens.hooked.part import HookedPart, borrow, hook_point
from cliplens.hooked.structure import called_as


class HookedLayerNorm(HookedPart):
    """Layer norm with hooks: LN(x) = (x - mean) / scale * w + b, with scale = sqrt(var + eps).

    `hook_scale` [batch, pos, 1] holds the scale, `hook_normalized` [batch, pos, d] the value before `w` and `b`, as in
    TransformerLens. Both are float32 if the stream has lower precision, as in the stock norm. With `centred=False` the
    mean is not subtracted (RMSNorm).
    """

    stock: nn.Module
    centred: bool

    def __init__(self, stock: nn.Module, d: int, *, centred: bool = True) -> None:
        super().__init__()
        borrow(self, stock=stock, centred=centred)
        self.hook_scale = hook_point(1)
        self.hook_normalized = hook_point(d)

    def forward(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Return the normalised stream. Without an active hook the stock norm runs."""
        if self.is_unhooked():
            return self.stock(x)
        return called_as(self.stock, self._inside, x)

    def _inside(self, x: Tensor) -> Tensor:
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        if self.centred:
            wide = wide - wide.mean(-1, keepdim=True)
        scale = self.hook_scale((wide.pow(2).mean(-1, keepdim=True) + self.eps).sqrt())
        normalised = self.hook_normalized(wide / scale)
        if self.w is not None:
            normalised = normalised * self.w.to(normalised.dtype)
        if self.b is not None:
            normalised = normalised + self.b.to(normalised.dtype)
        return normalised.to(x.dtype)

    @property
    def eps(self) -> float:
        """The constant added to the variance."""
        return self.stock.eps  # type: ignore[return-value]

    @property
    def w(self) -> Float[Tensor, " d"] | None:
        """The gain; None if the norm has none."""
        return getattr(self.stock, "weight", None)

    @property
    def b(self) -> Float[Tensor, " d"] | None:
        """The offset; None if the norm has none."""
        return getattr(self.stock, "bias", None)


class ClosedNorm(HookedPart):
    """A norm without hooks, such as an `nn.Identity` in its place."""

    stock: nn.Module
    w: None = None
    b: None = None

    def __init__(self, stock: nn.Module) -> None:
        super().__init__()
        borrow(self, stock=stock)

    def forward(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Apply the stock module."""
        return self.stock(x)


def hooked_norm(stock: nn.Module, d: int, *, centred: bool = True) -> HookedLayerNorm | ClosedNorm:
    """Return a layer norm with hooks, or a `ClosedNorm` for an `nn.Identity`."""
    return ClosedNorm(stock) if isinstance(stock, nn.Identity) else HookedLayerNorm(stock, d, centred=centred)
