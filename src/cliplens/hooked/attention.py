"""Self-attention with hooks on every step, over whatever way the stock module keeps its weights.

Where nobody looks inside, the stock module runs. Reading or writing q, k, v or z costs nothing more than torch's fused
attention; scores and pattern force the explicit softmax; `hook_result`, each head's own contribution to the residual
stream, is the one that is dear.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from cliplens.hooked.part import HookedPart, active, borrow, hook_point
from cliplens.hooked.weights import packed_weights

Heads = Float[Tensor, "batch pos head d_head"]
LayerScale = Callable[[], Tensor | None]


def no_layer_scale() -> None:
    """Return None: for blocks without LayerScale."""
    return


class HookedAttention(HookedPart, ABC):
    """q, k, v -> scores -> pattern -> z -> result, as TransformerLens names them.

    `layer_scale` gives the block's LayerScale on this branch, if any. `forward`, `hook_result`, `W_O` and `b_O` include
    it, so that they are what the residual stream receives.
    """

    stock: nn.Module
    layer_scale: LayerScale
    n_heads: int
    d_head: int
    hook_q: HookPoint
    hook_k: HookPoint
    hook_v: HookPoint
    hook_z: HookPoint

    def __init__(
        self,
        stock: nn.Module,
        *,
        d_model: int,
        n_heads: int,
        d_head: int,
        layer_scale: LayerScale = no_layer_scale,
        has_rotary: bool = False,
    ) -> None:
        super().__init__()
        borrow(self, stock=stock, layer_scale=layer_scale, n_heads=n_heads, d_head=d_head)
        for name in ("q", "k", "v", "z"):
            setattr(self, f"hook_{name}", hook_point(n_heads * d_head))
        if has_rotary:
            self.hook_rot_q, self.hook_rot_k = hook_point(n_heads * d_head), hook_point(n_heads * d_head)
        self.hook_attn_scores, self.hook_pattern = hook_point(None), hook_point(None)
        self.hook_result = hook_point(n_heads * d_model)
        self.has_rotary = has_rotary

    @abstractmethod
    def run_stock(self, x: Float[Tensor, "batch pos d_model"], context: Mapping[str, Any]) -> Tensor:
        """The stock module's own forward, before LayerScale."""

    @abstractmethod
    def project(self, x: Float[Tensor, "batch pos d_model"]) -> tuple[Heads, Heads, Heads]:
        """q, k and v."""

    @abstractmethod
    def rotate_qk(self, q: Heads, k: Heads, context: Mapping[str, Any]) -> tuple[Heads, Heads]:
        """q and k after qk-norm and rotary position; the same q and k where the family has neither."""

    @abstractmethod
    def mask(self, context: Mapping[str, Any], like: Heads) -> Tensor | None:
        """The additive mask, broadcastable to [batch, head, query, key]; None where every position sees every other."""

    @abstractmethod
    def pre_output(self, z: Heads) -> Heads:
        """z as the output projection receives it: after head scales and inner norm, where the family has them."""

    @property
    @abstractmethod
    def qkv(self) -> tuple[tuple[Tensor, Tensor | None], ...]:
        """(weight [head * d_head, d_model], bias or None) of q, k and v."""

    @property
    @abstractmethod
    def out(self) -> tuple[Tensor, Tensor | None]:
        """(weight [d_model, head * d_head], bias or None) of the output projection, without LayerScale."""

    @property
    @abstractmethod
    def scale(self) -> float:
        """What scores are multiplied by, 1 / sqrt(d_head) as a rule."""

    def forward(
        self, x: Float[Tensor, "batch pos d_model"], context: Mapping[str, Any]
    ) -> Float[Tensor, "batch pos d_model"]:
        """What attention adds to the residual stream (before a post-norm, if the block has one)."""
        if self.is_unhooked():
            return self._scaled(self.run_stock(x, context))
        q, k, v = self.project(x)
        q, k, v = self.hook_q(q), self.hook_k(k), self.hook_v(v)
        if self.has_rotary:
            q, k = self.rotate_qk(q, k, context)
            q, k = self.hook_rot_q(q), self.hook_rot_k(k)
        z = self.pre_output(self.hook_z(self._attend(q, k, v, context)))
        return self._join(z)

    def apply_out(self, z: Float[Tensor, "batch pos d_heads"]) -> Float[Tensor, "batch pos d_model"]:
        """Apply the output projection; override where the stock module calls a layer for it."""
        weight, bias = self.out
        return F.linear(z, weight, bias)

    def _attend(self, q: Heads, k: Heads, v: Heads, context: Mapping[str, Any]) -> Heads:
        mask = self.mask(context, q)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        if not active(self.hook_attn_scores, self.hook_pattern):
            return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=self.scale).transpose(1, 2)
        scores = (q * self.scale) @ k.transpose(-1, -2)
        scores = self.hook_attn_scores(scores if mask is None else scores + mask)
        pattern = scores.softmax(-1, dtype=torch.float32 if scores.dtype.itemsize == 2 else None).to(scores.dtype)
        return (self.hook_pattern(pattern) @ v).transpose(1, 2)

    def _join(self, z: Heads) -> Float[Tensor, "batch pos d_model"]:
        if active(self.hook_result):
            result = self.hook_result(torch.einsum("bphd,hdm->bphm", z, self.W_O))
            bias = self.b_O
            return result.sum(2) if bias is None else result.sum(2) + bias
        return self._scaled(self.apply_out(z.flatten(2)))

    def _scaled(self, out: Tensor) -> Tensor:
        scale = self.layer_scale()
        return out if scale is None else out * scale

    def _heads(self, index: int) -> Float[Tensor, "head d_model d_head"]:
        return self.qkv[index][0].view(self.n_heads, self.d_head, -1).transpose(1, 2)

    def _head_bias(self, index: int) -> Float[Tensor, "head d_head"] | None:
        bias = self.qkv[index][1]
        return None if bias is None else bias.view(self.n_heads, self.d_head)

    @property
    def W_Q(self) -> Float[Tensor, "head d_model d_head"]:
        """Query weights per head."""
        return self._heads(0)

    @property
    def W_K(self) -> Float[Tensor, "head d_model d_head"]:
        """Key weights per head."""
        return self._heads(1)

    @property
    def W_V(self) -> Float[Tensor, "head d_model d_head"]:
        """Value weights per head."""
        return self._heads(2)

    @property
    def b_Q(self) -> Float[Tensor, "head d_head"] | None:
        """Query biases per head."""
        return self._head_bias(0)

    @property
    def b_K(self) -> Float[Tensor, "head d_head"] | None:
        """Key biases per head."""
        return self._head_bias(1)

    @property
    def b_V(self) -> Float[Tensor, "head d_head"] | None:
        """Value biases per head."""
        return self._head_bias(2)

    @property
    def W_O(self) -> Float[Tensor, "head d_head d_model"]:
        """Output weights per head, with LayerScale."""
        return self._scaled(self.out[0].view(-1, self.n_heads, self.d_head).permute(1, 2, 0))

    @property
    def b_O(self) -> Float[Tensor, " d_model"] | None:
        """Output bias, with LayerScale."""
        bias = self.out[1]
        return None if bias is None else self._scaled(bias)


class PackedAttention(HookedAttention):
    """torch's `nn.MultiheadAttention`, batch first, queries, keys and values of one width."""

    stock: nn.MultiheadAttention

    def run_stock(self, x: Tensor, context: Mapping[str, Any]) -> Tensor:
        """Through the module itself, so that torch may take its own fast path."""
        mask = context["attn_mask"]
        mask = None if mask is None else mask.to(x.dtype)
        return self.stock(x, x, x, need_weights=False, attn_mask=mask)[0]

    def project(self, x: Tensor) -> tuple[Heads, Heads, Heads]:
        """One matrix product, three slices."""
        packed = F.linear(x, packed_weights(self.stock)[0], self.stock.in_proj_bias)
        d = self.n_heads * self.d_head
        shape = (*x.shape[:2], self.n_heads, self.d_head)
        return (
            packed[..., :d].reshape(shape),
            packed[..., d : 2 * d].reshape(shape),
            packed[..., 2 * d :].reshape(shape),
        )

    def rotate_qk(self, q: Heads, k: Heads, context: Mapping[str, Any]) -> tuple[Heads, Heads]:
        """Nothing to turn."""
        return q, k

    def mask(self, context: Mapping[str, Any], like: Heads) -> Tensor | None:
        """[query, key] as it is; [batch * head, query, key] unfolded."""
        mask = context["attn_mask"]
        if mask is None:
            return None
        mask = mask.to(like.dtype)
        return mask.view(like.shape[0], like.shape[2], *mask.shape[1:]) if mask.ndim == 3 else mask

    def pre_output(self, z: Heads) -> Heads:
        """Nothing between the heads and the projection."""
        return z

    @property
    def qkv(self) -> tuple[tuple[Tensor, Tensor | None], ...]:
        """Thirds of the packed projection."""
        weight, bias = packed_weights(self.stock)[0], self.stock.in_proj_bias
        biases = (None, None, None) if bias is None else bias.chunk(3)
        return tuple(zip(weight.chunk(3), biases, strict=True))

    @property
    def out(self) -> tuple[Tensor, Tensor | None]:
        """The output projection."""
        return packed_weights(self.stock)[1], self.stock.out_proj.bias

    @property
    def scale(self) -> float:
        """1 / sqrt(d_head)."""
        return float(self.stock.embed_dim // self.stock.num_heads) ** -0.5
