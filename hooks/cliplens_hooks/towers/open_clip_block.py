"""Hooked modules of open_clip's transformers: residual block, custom attention and attentional pooler."""

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from jaxtyping import Float
from open_clip.transformer import (
    AttentionalPooler,
    CustomResidualAttentionBlock,
    ResidualAttentionBlock,
)
from torch import Tensor, nn

from cliplens.errors import InputError
from cliplens.hooked import (
    Heads,
    HookedAttention,
    HookedBlock,
    HookedLayerNorm,
    HookedMLP,
    HookedPooler,
    PackedAttention,
    Queries,
    additive_mask,
    applied_bias,
    applied_weight,
    batch_of,
    hooked_norm,
    multihead_project,
    no_layer_scale,
)


class OpenClipPooler(HookedPooler):
    """Hooked `AttentionalPooler` of open_clip."""

    stock: AttentionalPooler

    def __init__(self, stock: AttentionalPooler) -> None:
        super().__init__(stock, width=stock.attn.embed_dim)
        self.ln_k = HookedLayerNorm(stock.ln_k, stock.ln_k.normalized_shape[0])

    def project(self, x: Float[Tensor, "batch pos d_model"]) -> tuple[Queries, Heads, Heads]:
        """Return the learnt queries, and keys and values of the stream."""
        x = self.ln_k(x)
        query = batch_of(self.stock.ln_q(self.stock.query), x)
        return multihead_project(self.stock.attn, query, x, x)

    def finish(self, z: Queries) -> Tensor:
        """Apply the output projection."""
        return self.stock.attn.out_proj(z.flatten(2))


class CustomAttention(HookedAttention):
    """Hooked `Attention` of open_clip's `CustomResidualAttentionBlock`, with optional qk-norm, head scales and norm."""

    stock: Any

    def run_stock(self, x: Float[Tensor, "batch pos d_model"], context: Mapping[str, Any]) -> Tensor:
        """Call the stock module."""
        return self.stock(x, attn_mask=context["attn_mask"])

    def project(self, x: Float[Tensor, "batch pos d_model"]) -> tuple[Heads, Heads, Heads]:
        """Return q, k and v from one matrix product."""
        packed = F.linear(x, self.stock.in_proj_weight, self.stock.in_proj_bias)
        shape = (*x.shape[:2], self.n_heads, self.d_head)
        d = self.n_heads * self.d_head
        return (
            packed[..., :d].reshape(shape),
            packed[..., d : 2 * d].reshape(shape),
            packed[..., 2 * d :].reshape(shape),
        )

    def rotate_qk(self, q: Heads, k: Heads, context: Mapping[str, Any]) -> tuple[Heads, Heads]:
        """Apply qk-norm."""
        return self.stock.ln_q(q), self.stock.ln_k(k)

    def mask(self, context: Mapping[str, Any], like: Heads) -> Tensor | None:
        """Return the mask of the context, see `additive_mask`."""
        return additive_mask(context["attn_mask"], like)

    def pre_output(self, z: Heads) -> Heads:
        """Apply head scales, then the norm over all heads."""
        if self.stock.head_scale is not None:
            z = z * self.stock.head_scale.transpose(0, 1)
        return self.stock.ln_inner(z.flatten(2)).view_as(z)

    @property
    def qkv(self) -> tuple[tuple[Tensor, Tensor | None], ...]:
        """The three parts of the packed projection."""
        bias = self.stock.in_proj_bias
        biases = (None, None, None) if bias is None else bias.chunk(3)
        return tuple(zip(self.stock.in_proj_weight.chunk(3), biases, strict=True))

    @property
    def out(self) -> tuple[Tensor, Tensor | None]:
        """Apply the output projection."""
        return applied_weight(self.stock.out_proj), applied_bias(self.stock.out_proj)

    def apply_out(self, z: Float[Tensor, "batch pos d_heads"]) -> Tensor:
        """Call the projection, as the stock module does."""
        return self.stock.out_proj(z)

    @property
    def scale(self) -> float:
        """1 / sqrt(d_head)."""
        return self.stock.scale


def hooked_block(stock: nn.Module) -> HookedBlock:
    """Return a hooked residual block.

    Raises:
        InputError: the block is of another kind.
    """
    known = ResidualAttentionBlock | CustomResidualAttentionBlock
    if (
        not isinstance(stock, known)
        or getattr(stock.attn, "logit_scale", None) is not None
        or hasattr(stock, "ln_1_kv")
    ):
        raise InputError(
            expected="open_clip's ResidualAttentionBlock or CustomResidualAttentionBlock (without scaled cosine)",
            found=type(stock).__name__,
            fix="write a Tower adapter for this model (CONTRIBUTING.md, 'Adding a tower')",
        )
    d = stock.attn.embed_dim if hasattr(stock.attn, "embed_dim") else stock.attn.out_proj.out_features
    scaled = _present(getattr(stock, "ln_attn", None)) is not None
    return HookedBlock(
        stock,
        hooked_norm(stock.ln_1, d),
        _attention(stock, d, scaled),
        hooked_norm(stock.ln_2, d),
        _mlp(stock, d),
        d_model=d,
        after_attn=(lambda out: stock.ls_1(stock.ln_attn(out))) if scaled else None,
    )


def _attention(stock: Any, d: int, scaled: bool) -> HookedAttention:
    custom = isinstance(stock, CustomResidualAttentionBlock)
    kind = CustomAttention if custom else PackedAttention
    return kind(
        stock.attn,
        d_model=d,
        n_heads=stock.attn.num_heads,
        d_head=d // stock.attn.num_heads,
        layer_scale=no_layer_scale if scaled else lambda: getattr(stock.ls_1, "gamma", None),
        has_rotary=custom and _present(stock.attn.ln_q) is not None,
    )


def _mlp(stock: Any, d: int) -> HookedMLP:
    mlp = stock.mlp
    return HookedMLP(
        mlp,
        mlp.c_fc,
        mlp.gelu,
        mlp.c_proj,
        d_model=d,
        d_mlp=mlp.c_fc.out_features,
        norm=_present(getattr(mlp, "ln", None)),
        layer_scale=lambda: getattr(stock.ls_2, "gamma", None),
    )


def _present(module: nn.Module | None) -> nn.Module | None:
    return None if isinstance(module, nn.Identity) else module
