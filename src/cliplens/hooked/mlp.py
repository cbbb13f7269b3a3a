"""MLPs with hooks, plain or gated."""

from typing import Any

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from cliplens.hooked.attention import LayerScale, no_layer_scale
from cliplens.hooked.part import HookedPart, borrow, hook_point
from cliplens.hooked.structure import called_as
from cliplens.hooked.weights import applied_bias, applied_weight, is_adapted


class LinearRows:
    """A linear layer made of some outputs of another one, for packed weights."""

    def __init__(self, linear: nn.Linear, start: int, stop: int) -> None:
        self.linear, self.rows = linear, slice(start, stop)

    def __call__(self, x: Tensor) -> Tensor:
        return self.linear(x)[..., self.rows] if is_adapted(self.linear) else F.linear(x, self.weight, self.bias)

    @property
    def weight(self) -> Float[Tensor, "d_out d_in"]:
        """These rows of the weight."""
        return applied_weight(self.linear)[self.rows]

    @property
    def bias(self) -> Float[Tensor, " d_out"] | None:
        """These entries of the bias."""
        bias = applied_bias(self.linear)
        return None if bias is None else bias[self.rows]


class HookedMLP(HookedPart):
    """An MLP with hooks: hook_in -> W_in -> hook_pre -> activation -> hook_post -> W_out.

    Gated: hook_post = act(hook_pre) * hook_pre_linear, where `fc_gate` gives hook_pre and `fc_in` hook_pre_linear, as
    in TransformerLens. With a norm before W_out, `hook_mid` is the input of the norm and hook_post its output.
    `norm_in` is a norm before W_in that is part of the stock module.
    `layer_scale` returns the LayerScale of this branch; `forward`, `W_out` and `b_out` include it.
    """

    stock: nn.Module
    layer_scale: LayerScale
    fc_in: "nn.Linear | LinearRows"
    fc_out: nn.Module
    act: nn.Module
    fc_gate: "nn.Linear | LinearRows | None"
    norm: nn.Module | None
    norm_in: nn.Module | None

    def __init__(
        self,
        stock: nn.Module,
        fc_in: Any,
        act: Any,
        fc_out: nn.Module,
        *,
        d_model: int,
        d_mlp: int,
        fc_gate: Any = None,
        norm: nn.Module | None = None,
        norm_in: nn.Module | None = None,
        layer_scale: LayerScale = no_layer_scale,
    ) -> None:
        super().__init__()
        borrow(self, stock=stock, fc_in=fc_in, act=act, fc_out=fc_out, fc_gate=fc_gate, layer_scale=layer_scale)
        borrow(self, norm=norm, norm_in=norm_in)
        self.hook_in = hook_point(d_model)
        self.hook_pre, self.hook_post = hook_point(d_mlp), hook_point(d_mlp)
        if fc_gate is not None:
            self.hook_pre_linear = hook_point(d_mlp)
        if norm is not None:
            self.hook_mid = hook_point(d_mlp)

    def forward(self, x: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        """Return the output that is added to the residual stream (before a post-norm, if the block has one)."""
        if self.is_unhooked():
            return self._scaled(self.stock(x))
        return self._scaled(called_as(self.stock, self._inside, x))

    def _inside(self, x: Tensor) -> Tensor:
        x = self.hook_in(x)
        if self.norm_in is not None:
            x = self.norm_in(x)
        if self.fc_gate is None:
            post = self.act(self.hook_pre(self.fc_in(x)))
        else:
            post = self.act(self.hook_pre(self.fc_gate(x))) * self.hook_pre_linear(self.fc_in(x))
        if self.norm is not None:
            post = self.norm(self.hook_mid(post))
        return self.fc_out(self.hook_post(post))

    def _scaled(self, out: Tensor) -> Tensor:
        scale = self.layer_scale()
        return out if scale is None else out * scale

    @property
    def W_in(self) -> Float[Tensor, "d_model d_mlp"]:
        """Input weights."""
        return applied_weight(self.fc_in).T

    @property
    def b_in(self) -> Float[Tensor, " d_mlp"] | None:
        """Input bias."""
        return applied_bias(self.fc_in)

    @property
    def W_gate(self) -> Float[Tensor, "d_model d_mlp"] | None:
        """Weights of the gate (`hook_pre`); None where the MLP is not gated."""
        return None if self.fc_gate is None else applied_weight(self.fc_gate).T

    @property
    def b_gate(self) -> Float[Tensor, " d_mlp"] | None:
        """Bias of the gate; None where there is no gate or no bias."""
        return None if self.fc_gate is None else applied_bias(self.fc_gate)

    @property
    def W_out(self) -> Float[Tensor, "d_mlp d_model"]:
        """Output weights, with LayerScale."""
        return self._scaled(applied_weight(self.fc_out).T)

    @property
    def b_out(self) -> Float[Tensor, " d_model"] | None:
        """Output bias, with LayerScale."""
        bias = applied_bias(self.fc_out)
        return None if bias is None else self._scaled(bias)
