"""Self-attention with hooks on every step, for every layout of the stock module's weights.

Without an active hook the stock module runs. With hooks on q, k, v or z, torch's fused attention runs. Hooks on scores
or pattern need the explicit softmax. `hook_result`, the contribution of each head to the residual stream, is expensive.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from transformer_lens.FactoredMatrix import FactoredMatrix
from transformer_lens.hook_points import HookPoint

from cliplens.hooked.part import HookedPart, active, borrow, hook_point
from cliplens.hooked.weights import packed_weights

Heads = Float[Tensor, "batch pos head d_head"]
LayerScale = Callable[[], Tensor | None]


def no_layer_scale() -> None:
    """Return None. Pass this function as `layer_scale` for blocks without LayerScale."""
    return


class HookedAttention(HookedPart, ABC):
    """Self-attention with TransformerLens' hooks: q, k, v, attn_scores, pattern, z, result.

    A subclass says how one kind of stock attention computes each step. It must define:

    | member                  | returns                                                                               |
    |-------------------------|---------------------------------------------------------------------------------------|
    | `run_stock(x, context)` | output of the stock module; used while no hook inside is active                       |
    | `project(x)`            | (q, k, v), each [batch, pos, head, d_head]                                            |
    | `rotate_qk(q, k, ctx)`  | q and k after qk-norm and rotary embedding; called only with `has_rotary=True`        |
    | `mask(context, like)`   | what is added to the scores [batch, head, query, key]; None for full attention        |
    | `pre_output(z)`         | z before the output projection; z itself, unless the stock module changes it there    |
    | `qkv`                   | ((W_q, b_q), (W_k, b_k), (W_v, b_v)): weights [head * d_head, d_model]; biases or None |
    | `out`                   | (W_o, b_o): weight [d_model, head * d_head]; bias or None                             |
    | `scale`                 | factor of the scores, usually d_head ** -0.5                                          |

    `context` is the dict that `embed` of the tower returned. `PackedAttention` is a complete example.

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
        """Run the stock module's own forward, before LayerScale."""

    @abstractmethod
    def project(self, x: Float[Tensor, "batch pos d_model"]) -> tuple[Heads, Heads, Heads]:
        """Return q, k and v, each [batch, pos, head, d_head]."""

    @abstractmethod
    def rotate_qk(self, q: Heads, k: Heads, context: Mapping[str, Any]) -> tuple[Heads, Heads]:
        """Apply qk-norm and rotary position embeddings to q and k. Return them unchanged if the family has neither."""

    @abstractmethod
    def mask(self, context: Mapping[str, Any], like: Heads) -> Tensor | None:
        """Return the additive mask, broadcastable to [batch, head, query, key]; None for full attention."""

    @abstractmethod
    def pre_output(self, z: Heads) -> Heads:
        """Apply head scales and the inner norm to z, before the output projection. Return z unchanged without them."""

    @property
    @abstractmethod
    def qkv(self) -> tuple[tuple[Tensor, Tensor | None], ...]:
        """Return ((W_q, b_q), (W_k, b_k), (W_v, b_v)): weights [head * d_head, d_model], biases or None."""

    @property
    @abstractmethod
    def out(self) -> tuple[Tensor, Tensor | None]:
        """Weight [d_model, head * d_head] and bias (or None) of the output projection, without LayerScale."""

    @property
    @abstractmethod
    def scale(self) -> float:
        """The factor of the attention scores, usually 1 / sqrt(d_head)."""

    def forward(
        self, x: Float[Tensor, "batch pos d_model"], context: Mapping[str, Any]
    ) -> Float[Tensor, "batch pos d_model"]:
        """Return the output that is added to the residual stream (before a post-norm, if the block has one)."""
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

    @property
    def QK(self) -> FactoredMatrix:
        """The matrix [head, d_model, d_model] of the scores of a query with a key, before their factor, in factors."""
        return FactoredMatrix(self.W_Q, self.W_K.transpose(-2, -1))

    @property
    def OV(self) -> FactoredMatrix:
        """The matrix [head, d_model, d_model] from an attended position to the stream, in factors."""
        return FactoredMatrix(self.W_V, self.W_O)


def additive_mask(mask: Shaped[Tensor, "*batch query key"] | None, like: Heads) -> Tensor | None:
    """Return a mask [query, key] in the dtype of `like`; reshape one of [batch * head, query, key] to four axes."""
    if mask is None:
        return None
    mask = mask.to(like.dtype)
    return mask.view(like.shape[0], like.shape[2], *mask.shape[1:]) if mask.ndim == 3 else mask


class PackedAttention(HookedAttention):
    """Hooked `nn.MultiheadAttention`: batch first; queries, keys and values of one width."""

    stock: nn.MultiheadAttention

    def run_stock(self, x: Float[Tensor, "batch pos d_model"], context: Mapping[str, Any]) -> Tensor:
        """Call the stock module, so that torch can use its fast path."""
        mask = context["attn_mask"]
        mask = None if mask is None else mask.to(x.dtype)
        return self.stock(x, x, x, need_weights=False, attn_mask=mask)[0]

    def project(self, x: Float[Tensor, "batch pos d_model"]) -> tuple[Heads, Heads, Heads]:
        """Return q, k and v from one matrix product."""
        packed = F.linear(x, packed_weights(self.stock)[0], self.stock.in_proj_bias)
        d = self.n_heads * self.d_head
        shape = (*x.shape[:2], self.n_heads, self.d_head)
        return (
            packed[..., :d].reshape(shape),
            packed[..., d : 2 * d].reshape(shape),
            packed[..., 2 * d :].reshape(shape),
        )

    def rotate_qk(self, q: Heads, k: Heads, context: Mapping[str, Any]) -> tuple[Heads, Heads]:
        """Return q and k unchanged."""
        return q, k

    def mask(self, context: Mapping[str, Any], like: Heads) -> Tensor | None:
        """Return the mask of the context, see `additive_mask`."""
        return additive_mask(context["attn_mask"], like)

    def pre_output(self, z: Heads) -> Heads:
        """Return z unchanged."""
        return z

    @property
    def qkv(self) -> tuple[tuple[Tensor, Tensor | None], ...]:
        """The three parts of the packed projection."""
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
