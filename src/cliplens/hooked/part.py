"""The smallest part of a tower: hook points around a stock module, which is shared and never altered."""

from typing import Any

from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint


def hook_point(width: int | None) -> HookPoint:
    """Return a hook point that knows the width of one row of its activations (None: no fixed width)."""
    made = HookPoint()
    made.width = width
    return made


def active(*points: nn.Module) -> bool:
    """Return whether there is a hook or a spliced dictionary at one of the hook points.

    The type is compared because a dictionary spliced in takes the hook point's place in the module tree.
    """
    for p in points:  # noqa: SIM110
        if type(p) is not HookPoint or p._forward_hooks or p._backward_hooks:
            return True  # a loop, not any(): this runs at every point of every forward
    return False


def borrow(part: nn.Module, **modules: Any) -> None:
    """Store stock modules as attributes without registering them, so that names and state dict stay the user's own."""
    part.__dict__.update(modules)


def call_hook(hook: nn.Module, rows: Tensor) -> Tensor:
    """Pass [batch, d] through a hook that keeps a position axis, [batch, 1, d]."""
    return hook(rows.unsqueeze(1)).squeeze(1) if rows.ndim == 2 else hook(rows)


class Recorder:
    """A forward hook that keeps the output under a name."""

    def __init__(self, into: dict[str, Tensor], name: str) -> None:
        self.into, self.name = into, name

    def __call__(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        self.into[self.name] = output


class HookedPart(nn.Module):
    """A module whose children are hook points and other parts only."""

    def __init__(self) -> None:
        super().__init__()
        self._points: tuple[nn.Module, ...] = ()

    def refresh(self) -> None:
        """List the hook points again; called whenever the module tree has changed."""
        inside = ((name.rpartition(".")[2], module) for name, module in self.named_modules())
        self._points = tuple(module for name, module in inside if name.startswith("hook_"))

    def is_unhooked(self) -> bool:
        """Return whether there are no hooks anywhere inside."""
        return not active(*self._points)
