"""Hooked modules of timm's transformers: attention, MLPs, latent pooler, and the steps around the blocks."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from open_clip.timm_model import TimmModel
from timm.layers import GluMlp, Mlp, SwiGLU, apply_rot_embed_cat
from timm.layers.attention_pool import AttentionPoolLatent
from timm.models.vitamin import GeGluMlp
from torch import Tensor, nn

from cliplens.errors import InputError
from cliplens.hooked import (
    ClosedNorm,
    Heads,
    HookedAttention,
    HookedLayerNorm,
    HookedMLP,
    HookedPooler,
    HookedVisionTower,
    LayerScale,
    LinearRows,
    Queries,
    TowerConfig,
    active,
    applied_bias,
    applied_weight,
    hook_point,
    hooked_norm,
    no_layer_scale,
    split_heads,
)


def stock_of(model: nn.Module) -> nn.Module:
    """Return the module that encodes images: open_clip's wrapper of a timm model, or the timm model itself."""
    return getattr(model, "visual", model)


def trunk_of(stock: nn.Module) -> nn.Module:
    """Return the timm model inside."""
    return stock.trunk if isinstance(stock, TimmModel) else stock


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
            d_head=stock.head_dim,
            layer_scale=layer_scale,
            has_rotary=rotary or present(stock.q_norm) is not None,
        )

    def run_stock(self, x: Tensor, context: Mapping[str, Any]) -> Tensor:
        """Call the stock module."""
        return self.stock(x, **context)

    def project(self, x: Tensor) -> tuple[Heads, Heads, Heads]:
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

    def apply_out(self, z: Tensor) -> Tensor:
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


class LatentPooler(HookedPooler):
    """Hooked `AttentionPoolLatent` of timm, the 'map' pooling of SigLIP and PE."""

    stock: Any

    def __init__(self, stock: AttentionPoolLatent) -> None:
        super().__init__(stock, width=stock.num_heads * stock.head_dim)
        if stock.mlp is not None:
            self.hook_mlp_out = hook_point(stock.out_features)

    def project(self, x: Tensor) -> tuple[Queries, Heads, Heads]:
        """Return queries of the learnt latent, and keys and values of the stream."""
        stock = self.stock
        if stock.pos_embed is not None:
            x = x + stock.pos_embed.unsqueeze(0).to(x.dtype)
        q = split_heads(stock.q(stock.latent.expand(len(x), -1, -1)), stock.num_heads)
        packed = stock.kv(x)
        k, v = (
            split_heads(half, stock.num_heads)
            for half in (packed[..., : packed.shape[-1] // 2], packed[..., packed.shape[-1] // 2 :])
        )
        return stock.q_norm(q), stock.k_norm(k), v

    def finish(self, z: Queries) -> Tensor:
        """Apply the output projection and the MLP of the pooler, and pool its tokens."""
        stock = self.stock
        x = stock.proj_drop(stock.proj(z.flatten(2)))
        if stock.mlp is not None:
            x = x + self.hook_mlp_out(stock.mlp(stock.norm(x)))
        return x[:, 0] if stock.pool == "token" else x.mean(1) if stock.pool == "avg" else x


class TimmTransformer(HookedVisionTower):
    """The steps before and after the blocks that timm's `VisionTransformer` and `Eva` share."""

    trunk: Any

    def open_ends(self, trunk: Any) -> None:
        """Create the hooked modules before and after the blocks."""
        self.__dict__["trunk"] = trunk
        d = trunk.embed_dim
        self.n_special = trunk.num_prefix_tokens
        self.adds_pos_embed = present(trunk.norm_pre) is None
        if not self.adds_pos_embed:
            self.ln_pre = timm_norm(trunk.norm_pre, d)
        if trunk.pos_embed is None:
            del self.hook_pos_embed
        if present(trunk.norm) is not None:
            self.ln_final = timm_norm(trunk.norm, d)
        elif present(trunk.fc_norm) is not None:
            self.ln_final = timm_norm(trunk.fc_norm, d)
        if trunk.attn_pool is not None:
            self.attn_pool = LatentPooler(trunk.attn_pool)
        self.hook_pooled = hook_point(d)

    @property
    def input_dtype(self) -> torch.dtype:
        """The dtype of the stream."""
        return next(self.trunk.patch_embed.parameters()).dtype

    def run_stock(self, inputs: Tensor) -> Tensor:
        """Run the stock model with its head."""
        return self.stock(inputs)

    def patches(self, images: Tensor) -> Float[Tensor, "batch pos d_model"]:
        """Return patch embeddings as [batch, pos, d]."""
        x = self.trunk.patch_embed(images)
        return self.hook_patch_embed(x.flatten(1, 2) if x.ndim == 4 else x)

    def with_positions(self, x: Float[Tensor, "batch patch d_model"]) -> Float[Tensor, "batch pos d_model"]:
        """Add class token and registers before the patches, and add position embeddings."""
        trunk = self.trunk
        special = [t.expand(len(x), -1, -1) for t in (trunk.cls_token, trunk.reg_token) if t is not None]
        x = torch.cat([*special, x], dim=1) if special else x
        if self.adds_pos_embed:
            x = self.hook_embed(x)
        if trunk.pos_embed is None:
            return x
        weights = trunk.pos_embed
        if trunk.no_embed_class and self.n_special:
            weights = F.pad(weights, (0, 0, self.n_special, 0))
        if active(self.hook_pos_embed):
            weights = self.hook_pos_embed(weights.expand(len(x), -1, -1).clone())
        return trunk.pos_drop(x + weights)

    def before_blocks(self, x: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        """Apply the norm before the blocks, if there is one."""
        return x if self.adds_pos_embed else self.hook_embed(self.ln_pre(x))

    def project(self, pooled: Tensor) -> Tensor:
        """Apply the head of the timm model, then that of open_clip."""
        x = self.trunk.head(self.trunk.head_drop(pooled))
        return self.stock.head(x) if isinstance(self.stock, TimmModel) else x

    def pool(self, stream: Tensor, inputs: Tensor) -> Tensor:
        """Apply norm, pooling and the norm after pooling, as far as the model has them."""
        trunk = self.trunk
        final = present(trunk.norm) is not None
        x = self.ln_final(stream) if final else stream
        if trunk.attn_pool is None:
            x = trunk.pool(x)
        else:
            x = self.attn_pool(x[:, self.n_special :] if getattr(trunk, "pool_include_prefix", True) is False else x)
        if present(trunk.fc_norm) is None:
            return x
        if final:
            return trunk.fc_norm(x)
        return self.ln_final(x.unsqueeze(1)).squeeze(1) if x.ndim == 2 else self.ln_final(x)


def timm_config(stock: nn.Module, family: str, d_mlp: int) -> TowerConfig:
    """Return the configuration of a timm transformer."""
    trunk: Any = trunk_of(stock)
    first = trunk.blocks[0]
    size = trunk.patch_embed.img_size
    return TowerConfig(
        model_name="",
        side="vision",
        family=family,
        d_model=trunk.embed_dim,
        n_layers=len(trunk.blocks),
        n_heads=first.attn.num_heads,
        d_head=first.attn.head_dim,
        d_mlp=d_mlp,
        n_ctx=trunk.patch_embed.num_patches + trunk.num_prefix_tokens,
        d_embed=d_embed(stock),
        eps=getattr(first.norm1, "eps", 1e-6),
        act_fn=type(first.mlp.act).__name__.lower(),
        image_size=None if size is None else tuple(size),
    )


def d_embed(stock: nn.Module) -> int:
    """Return the width of the output: of the last linear layer of the heads, or of the features."""
    trunk: Any = trunk_of(stock)
    ends = [trunk.head, *([stock.head] if isinstance(stock, TimmModel) else [])]
    linear = [m for end in ends for m in end.modules() if isinstance(m, nn.Linear)]
    return linear[-1].out_features if linear else trunk.num_features
