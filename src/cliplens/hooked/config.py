"""The configuration that TransformerLens and SAELens read from a model's `cfg`."""

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import torch

from cliplens.errors import unknown_attribute
from cliplens.sites import Side


@dataclass(frozen=True)
class TowerConfig:
    """The configuration of a tower, under TransformerLens' names. `device` and `dtype` follow its weights."""

    model_name: str
    side: Side
    family: str
    d_model: int
    n_layers: int
    n_heads: int
    d_head: int
    d_mlp: int
    n_ctx: int
    """Number of positions: patches and class token, or the context length."""
    d_embed: int
    """Width of the output of the tower."""
    eps: float = 1e-5
    act_fn: str = "gelu"
    normalization_type: str | None = "LN"
    d_vocab: int = 0
    """Size of the vocabulary; 0 for images."""
    image_size: tuple[int, int] | None = None
    """Height and width of the images; None for text."""
    attn_only: bool = False
    n_key_value_heads: int | None = None
    default_prepend_bos: bool = False
    tokenizer_prepends_bos: bool = False
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    dtype: torch.dtype = torch.float32


@dataclass(frozen=True)
class JointConfig:
    """The configuration of a model of two towers: what both share, and the configuration of each."""

    model_name: str
    d_embed: int
    """Width of the joint embedding space."""
    vision: TowerConfig | None
    text: TowerConfig | None
    device: torch.device
    dtype: torch.dtype

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            own = name in {f.name for f in fields(TowerConfig)}
            raise unknown_attribute(self, name, [f"cfg.{side}.{name}" for side in ("vision", "text")] if own else ())
