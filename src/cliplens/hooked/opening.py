"""Open a side of a model as a tower, with the adapter of its family."""

from torch import nn

from cliplens import registry
from cliplens.contracts import Tower
from cliplens.errors import InputError, MismatchError
from cliplens.hooked.sizes import check_set_up
from cliplens.hooked.structure import changes
from cliplens.hooked.tower import HookedTower
from cliplens.hooked.wrappers import wrapped_parts
from cliplens.sites import Side


def open_tower(model: nn.Module, side: Side, *, check: bool = True, built_by_name: bool = False) -> HookedTower | None:
    """Open one side of a stock model as a tower. Return None if the model has no such side.

    Args:
        model: the stock model.
        side: "vision" or "text".
        check: compare the tower with the stock encoder first.
        built_by_name: the encoder's own library built it, so it is compared only if somebody changed it since.

    Raises:
        InputError: no installed adapter opens this side.
        MismatchError: hooked and unhooked output differ; the message names the first block and the reason.
    """
    adapters = [adapter for _, adapter in registry.made("towers", Tower)]
    for adapter in adapters:
        if adapter.opens(model, side):
            try:
                return _proved(adapter.open(model, side), check, built_by_name)
            except MismatchError:
                raise
            except (AttributeError, TypeError, IndexError, KeyError, InputError) as error:
                raise _explained(model, side, error) from error
    if not _has_side(model, side):
        return None
    if wrapped := wrapped_parts(model):
        raise _in_wrappers(wrapped)
    raise InputError(
        expected=f"a {side} tower of one of the families {sorted(map(_family, adapters))}",
        found=f"the {side} side of {type(model).__name__}, which no adapter opens",
        fix="write a Tower adapter for it (CONTRIBUTING.md, 'Adding a tower')",
    )


def _proved(tower: nn.Module, check: bool, built_by_name: bool) -> HookedTower:
    if not isinstance(tower, HookedTower):
        raise MismatchError(
            expected="a HookedTower from the `open` of a Tower adapter",
            found=f"an object of class {type(tower).__name__}",
            fix="return a subclass of cliplens.hooked.HookedVisionTower or HookedTextTower",
        )
    check_set_up(tower)
    if check:
        tower.prove(built_by_name=built_by_name)
    return tower


def _explained(model: nn.Module, side: Side, error: Exception) -> InputError:
    """Return the error that says why an adapter could not open a side of a model put together unlike the stock one."""
    if wrapped := wrapped_parts(model):
        return _in_wrappers(wrapped)
    if isinstance(error, InputError) and not isinstance(error, AttributeError):
        return error
    changed = changes(model)
    named = [f"{name or 'the model'} is {why}" for name, why in changed.items()]
    return InputError(
        expected=f"a {side} side put together as {type(model).__name__} puts it together",
        found=f"{'; '.join(named[:3]) or 'one put together otherwise'} ({type(error).__name__}: {error})",
        fix="write a Tower adapter for it (CONTRIBUTING.md, 'Adding a tower')",
    )


def _in_wrappers(wrapped: list[str]) -> InputError:
    return InputError(
        expected="encoders and blocks without wrappers, whose inside hooks can reach",
        found=f"{len(wrapped)} inside torch.compile, DataParallel or DistributedDataParallel",
        fix=f"take them out ({'; '.join(wrapped[:3])}{'; ...' if len(wrapped) > 3 else ''}), or put the wrapper around"
        " the whole model, or compile in place with module.compile()",
    )


def _family(adapter: Tower) -> str:
    return getattr(adapter, "family", type(adapter).__name__)


def _has_side(model: nn.Module, side: Side) -> bool:
    """Return whether a model has this side. A model without `encode_text` counts as an image encoder."""
    return hasattr(model, "encode_text" if side == "text" else "encode_image") or (
        side == "vision" and not hasattr(model, "encode_text")
    )
