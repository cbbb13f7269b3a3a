"""A model's sides opened as towers, by the adapter that knows the family."""

from torch import nn

from cliplens import registry
from cliplens.contracts import Tower
from cliplens.errors import CliplensError, InputError
from cliplens.hooked.proof import check_entry
from cliplens.hooked.tower import HookedTower
from cliplens.hooked.wrappers import unwrapped
from cliplens.sites import Side


def open_tower(model: nn.Module, side: Side, *, check: bool = True, known_good: bool = False) -> HookedTower | None:
    """Open one side of a stock model as a tower; None where the model has no such side.

    Args:
        model: the stock model.
        side: "vision" or "text".
        check: compare hooked with un-hooked on two random inputs first.
        known_good: leave the comparison out for an encoder made of known classes, unchanged.

    Raises:
        InputError: no installed adapter opens it.
        MismatchError: hooked and un-hooked differ; names the first block and why.
    """
    adapters = [adapter for _, adapter in registry.made("towers", Tower)]
    for adapter in adapters:
        if adapter.opens(model, side):
            tower = _opened(adapter, model, side)
            assert isinstance(tower, HookedTower)
            if check:
                tower.prove(known_good=known_good)
                check_entry(model, tower)
            return tower
    if not _has_side(model, side):
        return None
    raise InputError(
        expected=f"a {side} tower of one of the families {sorted(a.family for a in adapters)}",
        found=f"the {side} side of {type(model).__name__}, which no adapter opens{_inside_a_wrapper(model)}",
        fix="put the module inside the wrapper in its place (`._orig_mod`, `.module`), or write a Tower adapter for it"
        " (CONTRIBUTING.md, 'Adding a tower')",
    )


def _has_side(model: nn.Module, side: Side) -> bool:
    """Return whether a model has a side at all: a model of one encoder has the other only if it says so."""
    return hasattr(model, "encode_text" if side == "text" else "encode_image") or (
        side == "vision" and not hasattr(model, "encode_text")
    )


def _opened(adapter: Tower, model: nn.Module, side: Side) -> nn.Module:
    try:
        return adapter.open(model, side)
    except CliplensError:
        raise
    except (AttributeError, KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            expected=f"a {side} encoder built as the adapter of the family {adapter.family!r} knows it",
            found=f"{type(error).__name__}: {' '.join(str(error).split())[:160]}",
            fix="put the original layers back, or write a Tower adapter for it (CONTRIBUTING.md, 'Adding a tower')",
        ) from error


def _inside_a_wrapper(model: nn.Module) -> str:
    """Return the words for parts of a model that sit in `torch.compile` or DataParallel."""
    wrapped = [f"{name} is a {type(m).__name__}" for name, m in model.named_children() if unwrapped(m) is not m]
    return f" ({', '.join(wrapped)})" if wrapped else ""
