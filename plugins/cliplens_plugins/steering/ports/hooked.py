"""Steer CLIP itself: sites of a `HookedCLIP` or of one of its towers."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from cliplens.errors import MismatchError
from cliplens.hooked import HookedCLIP, HookedTower
from cliplens.sites import Site
from cliplens_plugins.steering.ports.movement import Movement
from cliplens_plugins.steering.ports.port import Port
from cliplens_plugins.steering.ports.rewriting import Rewrite


def offers(target: Any, site: Site) -> bool:
    """Return whether the target has the tower of the site."""
    if isinstance(target, HookedCLIP):
        return site.side in target.towers
    return isinstance(target, HookedTower) and target.cfg.side == site.side


def port(target: Any, site: Site) -> Port:
    """Return the port of a site.

    Raises:
        UnknownNameError: there is no such hook; similar names are listed.
    """
    tower: HookedTower = target.towers[site.side] if isinstance(target, HookedCLIP) else target

    @contextmanager
    def attach(rewrite: Rewrite, movement: Movement) -> Iterator[None]:
        seen: dict[str, Tensor] = {}

        def rewritten(activation: Tensor, hook: Any) -> Tensor:
            return _rewritten(tower, rewrite, activation, seen.get("inputs"))

        with _inputs_kept(tower, seen), tower.hooks(fwd_hooks=[(site.hook, rewritten)]):
            yield

    return Port(site, tower.width(site.hook), attach)


@contextmanager
def _inputs_kept(tower: HookedTower, seen: dict[str, Tensor]) -> Iterator[None]:
    """Keep the inputs of a tower. Hooks only see activations, but every forward of a tower calls `checked`."""
    before, original = tower.__dict__.get("checked"), tower.checked

    def checked(inputs: Tensor) -> Tensor:
        seen["inputs"] = original(inputs)
        return seen["inputs"]

    tower.__dict__["checked"] = checked
    try:
        yield
    finally:
        if before is None:
            del tower.__dict__["checked"]
        else:
            tower.__dict__["checked"] = before


def _rewritten(tower: HookedTower, rewrite: Rewrite, activation: Tensor, inputs: Tensor | None) -> Tensor:
    if activation.ndim == 4:  # a dictionary reads all heads concatenated
        return rewrite(activation.flatten(2), _special(tower, activation, inputs)).unflatten(2, activation.shape[2:])
    if activation.ndim != 3:
        raise MismatchError(
            expected="a site with one row per position",
            found=f"activations {list(activation.shape)}",
            fix="choose a hook of shape [batch, pos, d]",
        )
    return rewrite(activation, _special(tower, activation, inputs))


def _special(tower: HookedTower, activation: Tensor, inputs: Tensor | None) -> Tensor | None:
    if inputs is None or activation.shape[1] == 1:
        return None
    if tower.cfg.side == "vision" and not tower.has_class_token:
        return None
    return tower.special_position(inputs)
