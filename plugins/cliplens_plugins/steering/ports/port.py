"""A place in a model where activations can be rewritten while a context is open."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from cliplens.sites import Site

Rewrite = Callable[[Tensor, Tensor | None], Tensor]
"""(activations [batch, pos, d], place of CLS or EOT [batch] or None) -> new activations."""


@dataclass(frozen=True)
class Port:
    """One site of one target. `attach(rewrite)` is a context: inside it the target is steered, after it untouched."""

    site: Site
    width: int
    attach: Callable[[Rewrite], AbstractContextManager[Any]]


def on_direction(rewrite: Rewrite) -> Rewrite:
    """The same rewriting for unnormalised embeddings, by a dictionary made on unit-norm ones; lengths are kept."""

    def rewritten(acts: Tensor, special: Tensor | None) -> Tensor:
        length = acts.norm(dim=-1, keepdim=True).clamp_min(1e-12)
        unit = acts / length
        moved = rewrite(unit, special)
        # acts + length * (moved - unit), not length * moved: rows that are not moved stay as they are, bit for bit.
        return acts + length * (moved - unit)

    return rewritten


def with_position(rewrite: Rewrite, acts: Tensor) -> Tensor:
    """Rewrite [batch, d] as one position."""
    return rewrite(acts[:, None], None)[:, 0]


def unit(acts: Tensor) -> Tensor:
    """Rows of length 1."""
    return F.normalize(acts, dim=-1)
