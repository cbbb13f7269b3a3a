"""Attention pooling with hooks: learnt queries attend to the whole stream."""

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from cliplens.hooked.part import HookedPart, active, borrow, hook_point

Queries = Float[Tensor, "batch query head d_head"]
Heads = Float[Tensor, "batch pos head d_head"]


class HookedPooler(HookedPart, ABC):
    """Attention pooler: hook_q and hook_z [batch, query, head, d_head], hook_k and hook_v, hook_pattern."""

    stock: nn.Module

    def __init__(self, stock: nn.Module, *, width: int) -> None:
        super().__init__()
        borrow(self, stock=stock)
        self.hook_q, self.hook_k, self.hook_v, self.hook_z = (hook_point(width) for _ in range(4))
        self.hook_pattern = hook_point(None)

    @abstractmethod
    def project(self, x: Float[Tensor, "batch pos d_model"]) -> tuple[Queries, Heads, Heads]:
        """Return q [batch, query, head, d_head], and k and v [batch, pos, head, d_head]."""

    @abstractmethod
    def finish(self, z: Queries) -> Float[Tensor, "batch *query d_pool"]:
        """Compute the output of the pooler from z."""

    def forward(self, x: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch *query d_pool"]:
        """Return the pooled vectors. Without an active hook the stock pooler runs."""
        if self.is_unhooked():
            return self.stock(x)
        q, k, v = self.project(x)
        q, k, v = (h.transpose(1, 2) for h in (self.hook_q(q), self.hook_k(k), self.hook_v(v)))
        if active(self.hook_pattern):
            pattern = (q * q.shape[-1] ** -0.5 @ k.transpose(-1, -2)).softmax(-1)
            z = self.hook_pattern(pattern) @ v
        else:
            z = F.scaled_dot_product_attention(q, k, v)
        return self.finish(self.hook_z(z.transpose(1, 2)))


def split_heads(x: Float[Tensor, "batch pos d"], n_heads: int) -> Heads:
    """Split the last axis into heads."""
    return x.reshape(*x.shape[:2], n_heads, -1)


def multihead_project(
    attn: nn.MultiheadAttention,
    query: Float[Tensor, "batch query d_query"],
    key: Float[Tensor, "batch pos d_key"],
    value: Float[Tensor, "batch pos d_value"],
) -> tuple[Queries, Heads, Heads]:
    """Return q, k and v of an `nn.MultiheadAttention` with packed or separate weights."""
    weights: tuple[Tensor, ...] = (attn.q_proj_weight, attn.k_proj_weight, attn.v_proj_weight)
    if attn.in_proj_weight is not None:
        weights = attn.in_proj_weight.chunk(3)
    biases = (None, None, None) if attn.in_proj_bias is None else attn.in_proj_bias.chunk(3)
    q, k, v = (
        split_heads(F.linear(x, w, b), attn.num_heads)
        for x, w, b in zip((query, key, value), weights, biases, strict=True)
    )
    return q, k, v


def batch_of(query: Float[Tensor, "query d"], like: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch query d"]:
    """Repeat the learnt queries for every sample."""
    return torch.as_tensor(query).unsqueeze(0).expand(len(like), -1, -1)
