"""Making edits. Each function gives a `records.Edit`, checked, ready to be composed with others in a list."""

import math
from collections.abc import Iterable, Sequence
from typing import Literal

from cliplens.errors import InputError
from cliplens.records import Edit

Positions = Literal["all", "special", "others"] | Sequence[int]
"""Everywhere; at CLS or EOT alone; everywhere else; or at the places counted from 0."""
Where = Literal["all", "firing"]
_NAMED = ("all", "special", "others")


def add(latents: Iterable[int], strength: float, *, where: Where = "all", positions: Positions = "all") -> Edit:
    """Add to the latents' codes. `where="firing"` adds only where the latent fires."""
    return _edit("add", latents, strength, positions=positions, where=where)


def set_to(latents: Iterable[int], strength: float, *, where: Where = "all", positions: Positions = "all") -> Edit:
    """Set the latents' codes."""
    return _edit("set", latents, strength, positions=positions, where=where)


def scale(latents: Iterable[int], factor: float, *, positions: Positions = "all") -> Edit:
    """Multiply the latents' codes."""
    return _edit("scale", latents, factor, positions=positions)


def clamp(
    latents: Iterable[int], low: float | None = None, high: float | None = None, *, positions: Positions = "all"
) -> Edit:
    """Keep the latents' codes between two bounds; one of them may be left open.

    Raises:
        InputError: no bound, or the lower one lies above the upper one.
    """
    if (low is None and high is None) or (low is not None and high is not None and low > high):
        raise InputError(
            expected="a lower bound, an upper one, or both in order",
            found=f"low={low}, high={high}",
            fix="give low <= high",
        )
    return _edit("clamp", latents, 0.0, positions=positions, low=low, high=high)


def ablate(latents: Iterable[int], *, positions: Positions = "all") -> Edit:
    """Silence the latents."""
    return _edit("ablate", latents, 0.0, positions=positions)


def replace(own: Iterable[int], targets: Iterable[int], strength: float, *, positions: Positions = "all") -> Edit:
    """Silence the own latents and add to the targets. A latent in both is a target.

    Raises:
        InputError: there is no target.
    """
    chosen = tuple(int(k) for k in targets)
    if not chosen:
        raise InputError(expected="at least one target latent", found="none", fix="use ablate to silence latents only")
    rest = tuple(k for k in own if k not in chosen)
    return _edit("replace", rest, strength, positions=positions, targets=chosen, empty=True)


def swap(latents: Iterable[int], alpha: float = 1.0, *, positions: Positions = "all") -> Edit:
    """Move the latents towards a reference's: z + alpha * mask * (z_ref - z), as Yan et al. (2502.14888) control."""
    return _edit("swap", latents, alpha, positions=positions)


def check(edit: Edit, d_sae: int) -> Edit:
    """The edit, if every latent it names exists.

    Raises:
        InputError: it names a latent the dictionary does not have.
    """
    named = (*edit.latents, *edit.options.get("targets", ()))
    outside = [k for k in named if not 0 <= k < d_sae]
    if outside:
        raise InputError(
            expected=f"latents from 0 to {d_sae - 1}",
            found=f"latent {outside[0]}",
            fix="name a latent of this dictionary",
        )
    return edit


def _edit(
    operation: str,
    latents: Iterable[int],
    strength: float,
    *,
    positions: Positions,
    empty: bool = False,
    **options: object,
) -> Edit:
    chosen = tuple(dict.fromkeys(int(k) for k in latents))
    if not chosen and not empty:
        raise InputError(expected="at least one latent to edit", found="none", fix="name a latent that exists")
    if not math.isfinite(strength):
        raise InputError(expected="a finite strength", found=str(strength), fix="give a number")
    kept = {name: value for name, value in options.items() if value not in (None, "all")}
    place = _checked(positions)
    return Edit(operation, chosen, float(strength), {**kept, **({} if place == "all" else {"positions": place})})


def _checked(positions: Positions) -> str | tuple[int, ...]:
    if isinstance(positions, str):
        if positions not in _NAMED:
            raise InputError(
                expected=f"positions: one of {', '.join(_NAMED)}, or whole numbers",
                found=repr(positions),
                fix="pick one",
            )
        return positions
    return tuple(int(p) for p in positions)
