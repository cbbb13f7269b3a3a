"""Open a model with an adapter and run all checks on the tower."""

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from cliplens.contracts import Tower
from cliplens.hooked import HookedTower, check_set_up, check_sizes
from cliplens.shapes import TowerInputs
from cliplens.sites import Side
from cliplens.testing.checks import (
    CHECKS,
    Stock,
    every_hook_fires,
    hooked_equals_stock,
    unhooked_equals_stock,
    writes_reach_the_output,
)
from cliplens.testing.comparing import TowerCheckError, check, explained
from cliplens.testing.declared import DECLARED


def check_adapter(
    adapter: Tower,
    model: nn.Module,
    side: Side,
    inputs: TowerInputs | None = None,
    *,
    no_effect: tuple[str, ...] = (),
    **renamed: Any,
) -> HookedTower:
    """Open a side of a model with an adapter, run all checks on the tower, and check that the model is unaltered.

    Args:
        adapter: the adapter.
        model: a tiny stock model with random weights, in float32 or float64.
        side: "vision" or "text".
        inputs: images or token ids; None makes random ones from `tower.cfg`.
        no_effect: prefixes of hooks whose activations do not reach the output.
        renamed: `unheard`, the old name of `no_effect`.

    Returns:
        The tower.

    Raises:
        TowerCheckError: a check fails; the message names the expected and the found value.
    """
    _check_class(adapter, model, side)
    before = fingerprint(model)
    with explained(f"a tower from {type(adapter).__name__}.open", "define the methods that the message names"):
        tower = adapter.open(model, side)
    if not isinstance(tower, HookedTower):
        raise TowerCheckError(
            expected=f"a HookedTower from {type(adapter).__name__}.open",
            found=f"an object of class {type(tower).__name__}",
            fix="return a subclass of cliplens.hooked.HookedVisionTower or HookedTextTower",
        )
    check_tower(tower, inputs, no_effect=no_effect, **renamed)
    check(
        fingerprint(model) == before,
        expected="an unaltered stock model",
        found="changed modules, attributes, hooks or weights",
        fix="store stock modules with cliplens.hooked.borrow, and do not assign to them",
    )
    return tower


class _Foreign(nn.Module):
    """A model that no adapter knows."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)


def _check_class(adapter: Tower, model: nn.Module, side: Side) -> None:
    """Check that the adapter names its family, opens the model, and does not open a model of another class."""
    name, family = type(adapter).__name__, getattr(adapter, "family", None)
    check(
        isinstance(family, str) and bool(family),
        expected=f"a class attribute {name}.family, a name that errors and lists show",
        found="none" if family is None else repr(family),
        fix='add a line such as family = "my family" to the class',
    )
    check(
        adapter.opens(model, side) is True,
        expected="an adapter that opens the model",
        found=f"opens(model, {side!r}) {adapter.opens(model, side)!r}",
        fix="let opens return True for this class of model",
    )
    for other in ("vision", "text"):
        check(
            not adapter.opens(_Foreign(), other),
            expected=f"{name}.opens(model, {other!r}) False for a model of another class",
            found="True for a module with one linear layer",
            fix="test the class of the model in opens, for example isinstance(model, MyEncoder)",
        )


def check_tower(
    tower: HookedTower,
    inputs: TowerInputs | None = None,
    *,
    stock: Stock | None = None,
    no_effect: tuple[str, ...] = (),
    **renamed: Any,
) -> None:
    """Run all checks on a tower, in float32 or float64.

    Args:
        tower: a tower of a tiny model with random weights.
        inputs: images or token ids; None makes them from `tower.cfg`.
        stock: function that computes the stock output; None takes `tower.run_stock`.
        no_effect: prefixes of hooks whose activations do not reach the output.
        renamed: `unheard`, the old name of `no_effect`.

    Raises:
        TowerCheckError: a check fails; the message names the expected and the found value.
    """
    no_effect = _renamed(renamed, no_effect)
    with explained("a complete tower of the declared sizes", "correct the __init__ of the tower"):
        check_set_up(tower)
        check_sizes(tower)
    inputs = example_inputs(tower) if inputs is None else inputs
    with explained("a forward pass without an error", "correct the method in which the error is raised"):
        unhooked_equals_stock(tower, inputs, stock or tower.run_stock)
        every_hook_fires(tower, inputs)
        hooked_equals_stock(tower, inputs, stock or tower.run_stock)
        for one in (*CHECKS, *DECLARED):
            one(tower, inputs)
        writes_reach_the_output(tower, inputs, no_effect)


def _renamed(given: dict[str, Any], no_effect: tuple[str, ...]) -> tuple[str, ...]:
    """Return `no_effect`, also where it was given under its old name."""
    if given.keys() - {"unheard"}:
        raise TypeError(f"unexpected keyword arguments {sorted(given)}")
    if not given:
        return no_effect
    warnings.warn("the keyword `unheard` is now `no_effect`", DeprecationWarning, stacklevel=3)
    return tuple(given["unheard"])


def example_inputs(tower: HookedTower, batch: int = 2) -> Tensor:
    """Return random images or token ids for a tower."""
    generator = torch.Generator().manual_seed(0)
    cfg = tower.cfg
    if cfg.image_size is not None:
        return torch.randn(batch, 3, *cfg.image_size, generator=generator).to(tower.device)
    return torch.randint(1, max(cfg.d_vocab, 3), (batch, cfg.n_ctx), generator=generator).to(tower.device)


def fingerprint(model: nn.Module) -> dict[str, Any]:
    """Return a description of modules, attributes, hooks and parameters, to check that a model is unaltered."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    modules = {
        n: (type(m), frozenset(vars(m)), m.training, *(len(getattr(m, h)) for h in hooks))
        for n, m in model.named_modules()
    }
    tensors = {n: (id(t), t.dtype, t.device, t.double().sum().item()) for n, t in model.named_parameters()}
    return {"modules": modules, "parameters": tensors, "state": tuple(model.state_dict())}
