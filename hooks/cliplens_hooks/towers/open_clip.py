"""Towers over open_clip's `VisionTransformer` and `TextTransformer`, in `CLIP`, `CustomTextCLIP` and `CoCa`."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from open_clip.transformer import (
    TextTransformer,
    VisionTransformer,
    text_global_pool,
)
from torch import Tensor, nn

from cliplens.contracts import Tower
from cliplens.hooked import (
    ClosedNorm,
    HookedLayerNorm,
    HookedTextTower,
    HookedTower,
    HookedVisionTower,
    TowerConfig,
    active,
    hook_point,
    hooked_norm,
)
from cliplens.shapes import TowerInputs
from cliplens.sites import Side
from cliplens_hooks.towers.open_clip_block import OpenClipPooler, hooked_block
from cliplens_hooks.towers.open_clip_inlined import InlinedText, project_text, stock_text


class OpenClipTower(Tower):
    """Opens `open_clip.transformer.VisionTransformer` and `TextTransformer`."""

    family: ClassVar[str] = "open_clip"

    def opens(self, model: nn.Module, side: Side) -> bool:
        """Return whether that side is one of open_clip's transformers."""
        stock = getattr(model, "visual", None) if side == "vision" else stock_text(model)
        return isinstance(stock, VisionTransformer if side == "vision" else TextTransformer | InlinedText)

    def open(self, model: nn.Module, side: Side) -> HookedTower:
        """Return the hooked tower."""
        return OpenClipVision(model.visual) if side == "vision" else OpenClipText(stock_text(model))


class OpenClipVision(HookedVisionTower):
    """A hooked `VisionTransformer`."""

    stock: VisionTransformer

    def __init__(self, stock: VisionTransformer) -> None:
        blocks = stock.transformer.resblocks
        super().__init__(stock, _config(stock, blocks, "vision"))
        self.adds_pos_embed = isinstance(stock.ln_pre, nn.Identity)
        if not self.adds_pos_embed:
            self.ln_pre = HookedLayerNorm(stock.ln_pre, stock.transformer.width)
        self.blocks = nn.ModuleList(hooked_block(b) for b in blocks)
        self.ln_final = hooked_norm(stock.ln_post, _d_pool(stock))
        self._open_pooling(stock)
        self.setup()

    def _open_pooling(self, stock: VisionTransformer) -> None:
        self.hook_pooled = hook_point(_d_pool(stock))
        if stock.attn_pool is not None:
            self.attn_pool = OpenClipPooler(stock.attn_pool)
            self.hook_pool_out = hook_point(stock.output_dim)
            if stock.attn_pool_contrastive is not None:
                self.attn_pool_contrastive = OpenClipPooler(stock.attn_pool_contrastive)

    @property
    def ln_post(self) -> HookedLayerNorm | ClosedNorm:
        """The final norm, `ln_final`, under open_clip's name."""
        return self.ln_final

    @property
    def input_dtype(self) -> torch.dtype:
        """The dtype of the images."""
        return self.stock.conv1.weight.dtype

    def run_stock(self, inputs: TowerInputs) -> Tensor:
        """Return the pooled output, without the patch tokens that some models return too."""
        out = self.stock(inputs)
        return out[0] if self.stock.output_tokens else out

    def embed(self, inputs: TowerInputs) -> tuple[Tensor, Mapping[str, Any]]:
        """Compute patch embeddings, add class token and positions, and apply `ln_pre` if there is one."""
        stock = self.stock
        patches = stock.conv1(inputs)
        patches = patches.reshape(*patches.shape[:2], -1).permute(0, 2, 1)
        x = self.hook_patch_embed(patches)
        cls = stock.class_embedding.view(1, 1, -1).expand(len(x), -1, -1).to(x.dtype)
        x = torch.cat([cls, x], dim=1)
        if self.adds_pos_embed:
            x = self.hook_embed(x)
        x = stock.patch_dropout(x + positions(self, stock.positional_embedding, x))
        if not self.adds_pos_embed:
            x = self.hook_embed(self.ln_pre(x))
        return x, {"attn_mask": None}

    def pool(self, stream: Float[Tensor, "batch pos d_model"], inputs: TowerInputs) -> Tensor:
        """Pool as `VisionTransformer._pool` does."""
        stock = self.stock
        if stock.attn_pool is None:
            if stock.final_ln_after_pool:
                return _normed(self.ln_final, stock._global_pool(stream)[0])
            return stock._global_pool(self.ln_final(stream))[0]
        if stock.attn_pool_contrastive is None:
            x = self.hook_pool_out(self.attn_pool(stream))
            return stock._global_pool(self.ln_final(x))[0]
        x = self.ln_final(stream)
        tokens = self.hook_pool_out(self.attn_pool(x))
        return self.attn_pool_contrastive(x if stock.attn_pool_type == "parallel" else tokens)

    def project(self, pooled: Float[Tensor, "batch *pos d_pool"]) -> Tensor:
        """Project into the joint embedding space; return the input if the model has no projection."""
        return pooled if self.stock.proj is None else pooled @ self.stock.proj


class OpenClipText(HookedTextTower):
    """A hooked `TextTransformer`, or the same parts inlined in a `CLIP`."""

    stock: TextTransformer | InlinedText

    def __init__(self, stock: TextTransformer | InlinedText) -> None:
        blocks = stock.transformer.resblocks
        super().__init__(stock, _config(stock, blocks, "text"))
        bounded = stock.attn_mask is not None and stock.cls_emb is None
        self.any_length = not (bounded or isinstance(stock, InlinedText))
        self.blocks = nn.ModuleList(hooked_block(b) for b in blocks)
        self.ln_final = hooked_norm(stock.ln_final, stock.transformer.width)
        self.hook_pooled = hook_point(stock.transformer.width)
        self.setup()

    @property
    def holder(self) -> nn.Module:
        """The module that holds all weights of the encoder."""
        return self.stock.model if isinstance(self.stock, InlinedText) else self.stock

    @property
    def input_dtype(self) -> torch.dtype:
        """The dtype of the residual stream."""
        return self.stock.transformer.get_cast_dtype()

    def run_stock(self, inputs: TowerInputs) -> Tensor:
        """Return the pooled output, without the token embeddings that some models return too."""
        out = self.stock(inputs)
        return out[0] if isinstance(out, tuple) else out

    def embed(self, inputs: TowerInputs) -> tuple[Tensor, Mapping[str, Any]]:
        """Embed tokens, append the class token of CoCa, add positions; return the stream and the mask."""
        stock = self.stock
        x = stock.token_embedding(inputs).to(self.input_dtype)
        if stock.cls_emb is not None:
            x = torch.cat([x, stock.cls_emb.view(1, 1, -1).expand(len(x), -1, -1)], dim=1)
        x = self.hook_embed(x)
        mask = self._mask(inputs, x)
        x = x + positions(self, stock.positional_embedding[: x.shape[1]], x)
        return x, {"attn_mask": mask}

    def pool(self, stream: Float[Tensor, "batch pos d_model"], inputs: TowerInputs) -> Tensor:
        """Return the stream at the position that the model reads: the end token, or the appended class token."""
        stock = self.stock
        if stock.cls_emb is not None:
            return _normed(self.ln_final, stream[:, -1])
        x = self.ln_final(stream)
        return text_global_pool(x, inputs, pool_type=stock.pool_type, eos_token_id=stock.eos_id)

    def project(self, pooled: Float[Tensor, "batch *pos d_pool"]) -> Tensor:
        """Project into the joint embedding space."""
        return project_text(self.stock, pooled)

    def special_position(self, inputs: Int[Tensor, "batch context"]) -> Int[Tensor, " batch"]:
        """Return the position that the model reads the caption from, usually the end token."""
        stock = self.stock
        if stock.cls_emb is not None:
            return torch.full_like(inputs[:, 0], inputs.shape[1])
        if stock.pool_type == "first":
            return torch.zeros_like(inputs[:, 0])
        if stock.pool_type == "last":
            return torch.full_like(inputs[:, 0], inputs.shape[1] - 1)
        if stock.pool_type == "eos":
            return (inputs == stock.eos_id).int().argmax(dim=-1)
        return inputs.argmax(dim=-1)

    def _mask(self, inputs: Tensor, x: Tensor) -> Tensor | None:
        stock: Any = self.stock
        mask = getattr(stock, "attn_mask", None)
        if not (stock.use_pad_mask or stock.cls_emb is not None):
            return mask
        n = x.shape[1]
        padding = stock._build_additive_mask(inputs, n, x.dtype)
        return padding if mask is None else mask[:n, :n].unsqueeze(0) + padding


def positions(tower: HookedTower, weights: Float[Tensor, "pos d"], like: Float[Tensor, "batch pos d"]) -> Tensor:
    """Return the position embeddings. With an active hook they are copied per sample, so edits do not alter weights."""
    weights = weights.to(like.dtype)
    if not active(tower.hook_pos_embed):
        return weights
    return tower.hook_pos_embed(weights.expand(len(like), -1, -1).clone())


def _normed(norm: HookedLayerNorm | ClosedNorm, pooled: Tensor) -> Tensor:
    return norm(pooled.unsqueeze(1)).squeeze(1) if pooled.ndim == 2 else norm(pooled)


def _config(stock: Any, blocks: Any, side: Side) -> TowerConfig:
    first = blocks[0]
    d = stock.transformer.width
    text = side == "text"
    n_ctx = stock.positional_embedding.shape[0] - (1 if text and stock.cls_emb is not None else 0)
    return TowerConfig(
        model_name="",
        side=side,
        family="TextTransformer" if text else "VisionTransformer",
        d_model=d,
        n_layers=len(blocks),
        n_heads=first.attn.num_heads,
        d_head=d // first.attn.num_heads,
        d_mlp=first.mlp.c_fc.out_features,
        n_ctx=n_ctx,
        d_embed=_d_embed(stock, d, side),
        eps=getattr(first.ln_1, "eps", 1e-5),
        act_fn="quick_gelu" if type(first.mlp.gelu).__name__ == "QuickGELU" else type(first.mlp.gelu).__name__.lower(),
        d_vocab=stock.vocab_size if text else 0,
        image_size=None if text else tuple(stock.image_size),
    )


def _d_pool(stock: VisionTransformer) -> int:
    """Return the width of the pooled vector: that of the blocks, or of an attention pooler behind them."""
    return stock.output_dim if stock.attn_pool is not None else stock.transformer.width


def _d_embed(stock: Any, d: int, side: Side) -> int:
    projection = stock.text_projection if side == "text" else stock.proj
    if projection is None:
        return d if side == "text" else _d_pool(stock)
    return projection.out_features if isinstance(projection, nn.Linear) else projection.shape[1]
