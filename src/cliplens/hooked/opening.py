"""A model's sides opened as towers, by the adapter that knows the family."""

from torch import nn

from cliplens import registry
from cliplens.contracts import Tower
from cliplens.errors import InputError
from cliplens.hooked.tower import HookedTower
from cliplens.sites import Side


def open_tower(model: nn.Module, side: Side) -> HookedTower | None:
    """One side of a stock model as a tower of its own; None where a model has no text side.

    Raises:
        InputError: no installed adapter opens it.
    """
    adapters = [adapter for _, adapter in registry.made("towers", Tower)]
    for adapter in adapters:
        if adapter.opens(model, side):
            return adapter.open(model, side)  # type: ignore[return-value]
    if side == "text" and not hasattr(model, "encode_text"):
        return None
    raise InputError(
        expected=f"a {side} tower of one of the families {sorted(a.family for a in adapters)}",
        found=f"the {side} side of {type(model).__name__}, which no adapter opens",
        fix="write a Tower adapter for it (CONTRIBUTING.md, 'Adding a tower')",
    )
