"""The steps before and after the blocks of timm's transformers: embedding, pooling and projection."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from open_clip.timm_model import TimmModel
from timm.layers.attention_pool import AttentionPoolLatent
from torch import Tensor, nn

from cliplens.hooked import (
    Heads,
    HookedBlock,
    HookedPooler,
    HookedVisionTower,
    Queries,
    TowerConfig,
    active,
    hook_point,
    split_heads,
)
from cliplens.shapes import Images
from cliplens_hooks.towers.timm_block import head_size, present, timm_norm


def stock_of(model: nn.Module) -> nn.Module:
    """Return the module that encodes images: open_clip's wrapper of a timm model, or the timm model itself."""
    return getattr(model, "visual", model)


def trunk_of(stock: nn.Module) -> nn.Module:
    """Return the timm model inside."""
    return stock.trunk if isinstance(stock, TimmModel) else stock


class LatentPooler(HookedPooler):
    """Hooked `AttentionPoolLatent` of timm, the 'map' pooling of SigLIP and PE."""

    stock: Any

    def __init__(self, stock: AttentionPoolLatent) -> None:
        super().__init__(stock, width=stock.num_heads * stock.head_dim)
        if stock.mlp is not None:
            self.hook_mlp_out = hook_point(stock.proj.out_features)

    def project(self, x: Float[Tensor, "batch pos d_model"]) -> tuple[Queries, Heads, Heads]:
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

    def __init__(self, stock: nn.Module, family: str, blocks: Sequence[HookedBlock]) -> None:
        super().__init__(stock, timm_config(stock, family, blocks[0].mlp.hook_post.width))
        self.__dict__["trunk"] = trunk_of(stock)
        self.blocks = nn.ModuleList(blocks)
        self._open_ends()
        self.setup()

    def _open_ends(self) -> None:
        """Create the hooked modules before and after the blocks."""
        trunk, d = self.trunk, self.trunk.embed_dim
        self.n_special, self.class_token = trunk.num_prefix_tokens, trunk.cls_token is not None
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

    def run_stock(self, inputs: Images) -> Tensor:
        """Run the stock model with its head."""
        return self.stock(inputs)

    def patches(self, images: Images) -> Float[Tensor, "batch pos d_model"]:
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

    def project(self, pooled: Float[Tensor, "batch *pos d_pool"]) -> Tensor:
        """Apply the head of the timm model, then that of open_clip."""
        x = self.trunk.head(self.trunk.head_drop(pooled))
        return self.stock.head(x) if isinstance(self.stock, TimmModel) else x

    def pool(self, stream: Float[Tensor, "batch pos d_model"], inputs: Images) -> Tensor:
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
        d_head=head_size(first.attn),
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
