"""One layer of a transformer: attention and MLP around a residual stream."""

from collections.abc import Callable, Mapping
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from cliplens.hooked.attention import HookedAttention
from cliplens.hooked.mlp import HookedMLP
from cliplens.hooked.norm import ClosedNorm, HookedLayerNorm
from cliplens.hooked.part import HookedPart, borrow, hook_point
from cliplens.hooked.structure import called_as


class HookedBlock(HookedPart):
    """A residual block: resid_mid = resid_pre + attn_out, and resid_post = resid_mid + mlp_out, exactly.

    Norms are applied before attention and MLP, or after them with `post_norm`. `hook_attn_out` and `hook_mlp_out` hold
    the terms added to the stream: after LayerScale, after a post-norm, and after `after_attn` (any further function of
    the attention output). `drops` are the stochastic-depth modules of the stock block, which are the identity in eval
    mode.
    """

    stock: nn.Module
    drops: tuple[nn.Module | None, nn.Module | None]
    hook_resid_pre: HookPoint
    hook_attn_out: HookPoint
    hook_resid_mid: HookPoint
    hook_mlp_out: HookPoint
    hook_resid_post: HookPoint
    after_attn: Callable[[Tensor], Tensor] | None

    def __init__(
        self,
        stock: nn.Module,
        ln1: HookedLayerNorm | ClosedNorm,
        attn: HookedAttention,
        ln2: HookedLayerNorm | ClosedNorm,
        mlp: HookedMLP,
        *,
        d_model: int,
        post_norm: bool = False,
        after_attn: Callable[[Tensor], Tensor] | None = None,
        drops: tuple[nn.Module | None, nn.Module | None] = (None, None),
    ) -> None:
        super().__init__()
        borrow(self, stock=stock, drops=drops, after_attn=after_attn)
        self.ln1, self.attn, self.ln2, self.mlp = ln1, attn, ln2, mlp
        for name in ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post"):
            setattr(self, f"hook_{name}", hook_point(d_model))
        self.post_norm = post_norm

    def forward(
        self, x: Float[Tensor, "batch pos d_model"], context: Mapping[str, Any]
    ) -> Float[Tensor, "batch pos d_model"]:
        """Return the stream after the block. Without an active hook inside, the stock block runs."""
        if self.is_unhooked():
            return self.stock(x, **context)
        return called_as(self.stock, self._inside, x, **context)

    def _inside(self, x: Tensor, **context: Any) -> Tensor:
        x = self.hook_resid_pre(x)
        x = self.hook_resid_mid(x + self.hook_attn_out(self._attention(x, context)))
        return self.hook_resid_post(x + self.hook_mlp_out(self._mlp(x)))

    def _attention(self, x: Tensor, context: Mapping[str, Any]) -> Tensor:
        out = self.ln1(self.attn(x, context)) if self.post_norm else self.attn(self.ln1(x), context)
        if self.after_attn is not None:
            out = self.after_attn(out)
        drop = self.drops[0]
        return out if drop is None else drop(out)

    def _mlp(self, x: Tensor) -> Tensor:
        out = self.ln2(self.mlp(x)) if self.post_norm else self.mlp(self.ln2(x))
        drop = self.drops[1]
        return out if drop is None else drop(out)
