"""Hook points around a stock module, which is shared and never altered."""

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint


def hook_point(width: int | None) -> HookPoint:
    """Return a hook point with the width of one row of its activations (None: no fixed width)."""
    made = HookPoint()
    made.width = width
    return made


def active(*points: nn.Module) -> bool:
    """Return whether there is a hook or a spliced dictionary at one of the hook points.

    The type is compared because a spliced dictionary replaces the hook point in the module tree.
    """
    for p in points:  # noqa: SIM110
        if type(p) is not HookPoint or p._forward_hooks or p._backward_hooks:
            return True  # A loop is faster than any(), and this runs at every hook point of every forward pass.
    return False


def borrow(part: nn.Module, **modules: Any) -> None:
    """Store stock modules as attributes without registering them, so that the state dict keeps its names."""
    part.__dict__.update(modules)


def call_hook(hook: nn.Module, rows: Float[Tensor, "batch *pos d"]) -> Tensor:
    """Pass activations [batch, d] through a hook point of shape [batch, 1, d]."""
    return hook(rows.unsqueeze(1)).squeeze(1) if rows.ndim == 2 else hook(rows)


class Recorder:
    """A forward hook that stores the output under a name."""

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
        """Update the list of hook points after a change of the module tree."""
        inside = ((name.rpartition(".")[2], module) for name, module in self.named_modules())
        self._points = tuple(module for name, module in inside if name.startswith("hook_"))

    def is_unhooked(self) -> bool:
        """Return whether no hook point inside has hooks."""
        return not active(*self._points)
