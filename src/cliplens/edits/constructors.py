"""Make edits, with one function per operation. Each returns a checked `Edit`; edits in a list are applied in order."""

from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np

from cliplens.edits.edit import Edit

Index = int | np.integer

Positions = Literal["all", "special", "others", "content"] | Sequence[int]
"""Positions to edit. "all"; "special": only CLS or EOT; "others": all except these; "content": the words of a caption
or the patches of an image; or a list of positions counted from 0."""
Where = Literal["all", "firing"]


def add(latents: Iterable[Index], strength: float, *, where: Where = "all", positions: Positions = "all") -> Edit:
    """Add `strength` to the latents' codes. `where="firing"` adds only where the latent fires.

    >>> add([17], 4.0)
    Edit(operation='add', latents=(17,), strength=4.0, options={})
    """
    return _edit("add", latents, strength, positions=positions, where=where)


def set_to(latents: Iterable[Index], strength: float, *, where: Where = "all", positions: Positions = "all") -> Edit:
    """Set the latents' codes to `strength`, an activation of the latent. At dose 0.5 they move half the way.

    `where="firing"` sets only the codes of rows on which the latent fires.
    """
    return _edit("set", latents, strength, positions=positions, where=where)


def scale(latents: Iterable[Index], factor: float, *, positions: Positions = "all") -> Edit:
    """Multiply the latents' codes by `factor`."""
    return _edit("scale", latents, factor, positions=positions)


def clamp(
    latents: Iterable[Index],
    low: float | None = None,
    high: float | None = None,
    *,
    positions: Positions = "all",
) -> Edit:
    """Clip the latents' codes to [low, high]; one of the bounds may be None.

    >>> clamp([3], high=0.5).options
    {'high': 0.5}

    Raises:
        InputError: both bounds are None, or `low` is above `high`.
    """
    return _edit("clamp", latents, 0.0, positions=positions, low=low, high=high)


def ablate(latents: Iterable[Index], *, positions: Positions = "all") -> Edit:
    """Set the latents' codes to 0."""
    return _edit("ablate", latents, 0.0, positions=positions)


def replace(
    own: Iterable[Index],
    targets: Iterable[Index],
    strength: float,
    *,
    positions: Positions = "all",
) -> Edit:
    """Set the codes of `own` to 0 and add `strength` to those of `targets`. A latent in both counts as a target.

    >>> replace([1, 2], [2], 4.0)
    Edit(operation='replace', latents=(1,), strength=4.0, options={'targets': (2,)})

    Raises:
        InputError: `targets` is empty.
    """
    chosen = tuple(targets)
    return _edit("replace", [k for k in own if k not in chosen], strength, positions=positions, targets=chosen)


def swap(latents: Iterable[Index], alpha: float = 1.0, *, positions: Positions = "all") -> Edit:
    """Move the latents' codes towards those of a reference sample: z + alpha * mask * (z_ref - z).

    This is the intervention of Yan et al. (https://arxiv.org/abs/2502.14888).
    """
    return _edit("swap", latents, alpha, positions=positions)


def _edit(operation: str, latents: Iterable[Index], strength: float, **options: object) -> Edit:
    kept = {name: value for name, value in options.items() if value is not None and not _is_default(value)}
    whole = tuple(int(k) if isinstance(k, np.integer) else k for k in latents)
    return Edit(operation, whole, strength, kept)


def _is_default(value: object) -> bool:
    return isinstance(value, str) and value == "all"
