"""Adapt functions that rewrite activations to embeddings."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

Rewrite = Callable[[Tensor, Tensor | None], Tensor]
"""Function of activations [batch, pos, d] and the position of CLS or EOT [batch] (or None); returns activations."""


def on_direction(rewrite: Rewrite) -> Rewrite:
    """Adapt a rewrite of unit-norm embeddings to unnormalised ones, whose norms are kept."""

    def rewritten(acts: Tensor, special: Tensor | None) -> Tensor:
        length = acts.norm(dim=-1, keepdim=True).clamp_min(1e-12)
        unit = acts / length
        moved = rewrite(unit, special)
        # acts + length * (moved - unit), not length * moved: rows that do not move stay bit-identical.
        return acts + length * (moved - unit)

    return rewritten


def with_position(rewrite: Rewrite, acts: Float[Tensor, "batch d"]) -> Tensor:
    """Rewrite [batch, d] as one position."""
    return rewrite(acts[:, None], None)[:, 0]


def on_first_rows(rewrite: Rewrite, rows: int | None) -> Rewrite:
    """Return a rewrite of the first samples of a batch; the others stay as they are. None rewrites all."""
    if rows is None:
        return rewrite

    def rewritten(acts: Tensor, special: Tensor | None) -> Tensor:
        ends = special if special is None or len(special) == 1 else special[:rows]
        return torch.cat([rewrite(acts[:rows], ends), acts[rows:]])

    return rewritten
