"""Hooked modules of timm's transformer blocks: norm, attention, MLP and the block itself."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from timm.layers import GluMlp, Mlp, SwiGLU, apply_rot_embed_cat
from timm.models.vitamin import GeGluMlp
from torch import Tensor, nn

from cliplens.errors import InputError
from cliplens.hooked import (
    ClosedNorm,
    Heads,
    HookedAttention,
    HookedBlock,
    HookedLayerNorm,
    HookedMLP,
    LayerScale,
    LinearRows,
    applied_bias,
    applied_weight,
    hooked_norm,
    no_layer_scale,
    split_heads,
)


def head_size(attention: Any) -> int:
    """Return the width of a head. EVA attention of timm 1.0.17 has no `head_dim`, and the projection out knows it."""
    return int(attention.proj.in_features) // int(attention.num_heads)


def present(module: nn.Module | None) -> nn.Module | None:
    """Return the module, or None for an `nn.Identity`."""
    return None if isinstance(module, nn.Identity) else module


def timm_norm(stock: nn.Module, d: int) -> HookedLayerNorm | ClosedNorm:
    """Return a hooked layer norm or RMSNorm, or a `ClosedNorm` for an `nn.Identity`."""
    return hooked_norm(stock, d, centred="rms" not in type(stock).__name__.lower())


class TimmAttention(HookedAttention):
    """Hooked `Attention`, `AttentionRope` and `EvaAttention` of timm, with packed or separate weights."""

    stock: Any

    def __init__(
        self, stock: Any, d_model: int, layer_scale: LayerScale = no_layer_scale, rotary: bool = False
    ) -> None:
        if getattr(stock, "gate", None) is not None or getattr(stock, "num_kv_groups", 1) > 1:
            raise InputError(
                expected="timm attention without gates and grouped queries",
                found=type(stock).__name__,
                fix="write an adapter for it (CONTRIBUTING.md, 'Adding a tower')",
            )
        super().__init__(
            stock,
            d_model=d_model,
            n_heads=stock.num_heads,
            d_head=head_size(stock),
            layer_scale=layer_scale,
            has_rotary=rotary or present(stock.q_norm) is not None,
        )

    def run_stock(self, x: Float[Tensor, "batch pos d_model"], context: Mapping[str, Any]) -> Tensor:
        """Call the stock module."""
        return self.stock(x, **context)

    def project(self, x: Float[Tensor, "batch pos d_model"]) -> tuple[Heads, Heads, Heads]:
        """Return q, k and v, from one matrix product for packed weights or three for separate ones."""
        if self.stock.qkv is None:
            return tuple(
                split_heads(p(x), self.n_heads) for p in (self.stock.q_proj, self.stock.k_proj, self.stock.v_proj)
            )  # type: ignore[return-value]
        stock = self.stock
        by_weight = getattr(stock, "q_bias", None) is not None
        packed = F.linear(x, stock.qkv.weight, self._packed_bias()) if by_weight else stock.qkv(x)
        d = self.n_heads * self.d_head
        q, k, v = (split_heads(packed[..., i * d : (i + 1) * d], self.n_heads) for i in range(3))
        return q, k, v

    def rotate_qk(self, q: Heads, k: Heads, context: Mapping[str, Any]) -> tuple[Heads, Heads]:
        """Apply qk-norm, then rotary embeddings at the patches (not at class token and registers)."""
        q, k = self.stock.q_norm(q), self.stock.k_norm(k)
        rope = context.get("rope")
        return (q, k) if rope is None else (self._rotated(q, rope), self._rotated(k, rope))

    def mask(self, context: Mapping[str, Any], like: Heads) -> Tensor | None:
        """Return None: attention over patches has no mask."""
        return None

    def pre_output(self, z: Heads) -> Heads:
        """Apply the norm over all heads, if there is one."""
        return self.stock.norm(z.flatten(2)).view_as(z)

    @property
    def qkv(self) -> tuple[tuple[Tensor, Tensor | None], ...]:
        """Weights and biases of q, k and v."""
        if self.stock.qkv is None:
            apart = (self.stock.q_proj, self.stock.k_proj, self.stock.v_proj)
            return tuple((applied_weight(p), applied_bias(p)) for p in apart)
        bias = self._packed_bias()
        biases = (None, None, None) if bias is None else bias.chunk(3)
        return tuple(zip(self._packed_weight().chunk(3), biases, strict=True))

    @property
    def out(self) -> tuple[Tensor, Tensor | None]:
        """Weight and bias of the output projection."""
        return applied_weight(self.stock.proj), applied_bias(self.stock.proj)

    def apply_out(self, z: Float[Tensor, "batch pos d_heads"]) -> Tensor:
        """Call the projection, as the stock module does."""
        return self.stock.proj(z)

    @property
    def scale(self) -> float:
        """1 / sqrt(d_head)."""
        return self.stock.scale

    def _packed_weight(self) -> Tensor:
        by_weight = getattr(self.stock, "q_bias", None) is not None
        return self.stock.qkv.weight if by_weight else applied_weight(self.stock.qkv)

    def _packed_bias(self) -> Tensor | None:
        if getattr(self.stock, "q_bias", None) is None:
            return applied_bias(self.stock.qkv)
        return torch.cat((self.stock.q_bias, self.stock.k_bias, self.stock.v_bias))

    def _rotated(self, x: Heads, rope: Tensor) -> Heads:
        n = self.stock.num_prefix_tokens
        turned = apply_rot_embed_cat(x[:, n:].transpose(1, 2), rope, half=getattr(self.stock, "rotate_half", False))
        return torch.cat([x[:, :n], turned.transpose(1, 2).type_as(x)], dim=1)


def hooked_mlp(stock: Any, d_model: int, layer_scale: LayerScale = no_layer_scale) -> HookedMLP:
    """Return a hooked MLP of any of timm's kinds.

    Raises:
        InputError: the kind is not supported.
    """
    parts: tuple[Any, ...]
    if isinstance(stock, GluMlp):
        half = stock.fc1.out_features // 2
        first, second = LinearRows(stock.fc1, 0, half), LinearRows(stock.fc1, half, 2 * half)
        gate, linear = (second, first) if stock.gate_last else (first, second)
        parts = (linear, stock.act, stock.fc2, half, gate, stock.norm, None)
    elif isinstance(stock, SwiGLU):
        parts = (stock.fc1_x, stock.act, stock.fc2, stock.fc1_x.out_features, stock.fc1_g, stock.norm, None)
    elif isinstance(stock, GeGluMlp):
        parts = (stock.w1, stock.act, stock.w2, stock.w1.out_features, stock.w0, None, stock.norm)
    elif isinstance(stock, Mlp):
        parts = (stock.fc1, stock.act, stock.fc2, stock.fc1.out_features, None, stock.norm, None)
    else:
        raise InputError(
            expected="one of timm's Mlp, GluMlp, SwiGLU, GeGluMlp",
            found=type(stock).__name__,
            fix="write an adapter for it (CONTRIBUTING.md, 'Adding a tower')",
        )
    fc_in, act, fc_out, d_mlp, fc_gate, norm, norm_in = parts
    return HookedMLP(
        stock,
        fc_in,
        act,
        fc_out,
        d_model=d_model,
        d_mlp=d_mlp,
        fc_gate=fc_gate,
        norm=present(norm),
        norm_in=norm_in,
        layer_scale=layer_scale,
    )


def timm_block(
    stock: Any, d: int, scales: tuple[LayerScale, LayerScale], *, rotary: bool = False, post_norm: bool = False
) -> HookedBlock:
    """Return a hooked block.

    Args:
        stock: a block of timm's `VisionTransformer` or `Eva`.
        d: width of the stream.
        scales: functions that return the LayerScale of the attention branch and of the MLP branch.
        rotary: whether attention uses rotary position embeddings.
        post_norm: whether norms follow attention and MLP.
    """
    return HookedBlock(
        stock,
        timm_norm(stock.norm1, d),
        TimmAttention(stock.attn, d, layer_scale=scales[0], rotary=rotary),
        timm_norm(stock.norm2, d),
        hooked_mlp(stock.mlp, d, layer_scale=scales[1]),
        d_model=d,
        post_norm=post_norm,
        drops=(present(stock.drop_path1), present(stock.drop_path2)),
    )
