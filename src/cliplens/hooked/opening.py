"""Open a side of a model as a tower, with the adapter of its family."""

from torch import nn

from cliplens import registry
from cliplens.contracts import Tower
from cliplens.errors import InputError
from cliplens.hooked.tower import HookedTower
from cliplens.sites import Side


def open_tower(model: nn.Module, side: Side, *, check: bool = True) -> HookedTower | None:
    """Open one side of a stock model as a tower. Return None if the model has no such side.

    Args:
        model: the stock model.
        side: "vision" or "text".
        check: compare the tower with the stock encoder first, unless the encoder consists of known classes only.

    Raises:
        InputError: no installed adapter opens this side.
        MismatchError: hooked and unhooked output differ; the message names the first block and the reason.
    """
    adapters = [adapter for _, adapter in registry.made("towers", Tower)]
    for adapter in adapters:
        if adapter.opens(model, side):
            tower = adapter.open(model, side)
            assert isinstance(tower, HookedTower)
            if check:
                tower.prove()
            return tower
    if not _has_side(model, side):
        return None
    raise InputError(
        expected=f"a {side} tower of one of the families {sorted(a.family for a in adapters)}",
        found=f"the {side} side of {type(model).__name__}, which no adapter opens",
        fix="write a Tower adapter for it (CONTRIBUTING.md, 'Adding a tower')",
    )


def _has_side(model: nn.Module, side: Side) -> bool:
    """Return whether a model has this side. A model without `encode_text` counts as an image encoder."""
    return hasattr(model, "encode_text" if side == "text" else "encode_image") or (
        side == "vision" and not hasattr(model, "encode_text")
    )
