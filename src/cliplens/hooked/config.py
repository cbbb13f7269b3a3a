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
    """Name of the model; "" in an adapter, because `cliplens.load` and `cliplens.wrap` fill it in."""
    side: Side
    """"vision" or "text"."""
    family: str
    """Name of the architecture, shown in lists and errors."""
    d_model: int
    """Width of the residual stream."""
    n_layers: int
    """Number of blocks."""
    n_heads: int
    """Attention heads per block."""
    d_head: int
    """Width of one head, usually d_model / n_heads."""
    d_mlp: int
    """Width inside the MLP."""
    n_ctx: int
    """Number of positions: patches, class token and registers of an image, or the context length of a caption."""
    d_embed: int
    """Width of the output of the tower."""
    eps: float = 1e-5
    """Epsilon of the norms. Like the next two fields it is for readers: the tower runs the stock modules."""
    act_fn: str = "gelu"
    """Activation of the MLP, under TransformerLens' name."""
    normalization_type: str | None = "LN"
    """Norm before attention and MLP, under TransformerLens' name: "LN", "RMS" or None."""
    d_vocab: int = 0
    """Size of the vocabulary; 0 for images."""
    image_size: tuple[int, int] | None = None
    """Height and width of the images; None for text."""
    attn_only: bool = False
    """Whether the blocks have no MLP."""
    n_key_value_heads: int | None = None
    """Number of key and value heads if it differs from `n_heads`."""
    default_prepend_bos: bool = False
    """Always False: token ids of captions contain the start token already."""
    tokenizer_prepends_bos: bool = False
    """Always False, for the same reason."""
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
