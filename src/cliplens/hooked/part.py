"""The smallest piece of a tower: a module of hook points around a stock module it borrows and never alters."""

from typing import Any

from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint


def hook_point(width: int | None) -> HookPoint:
    """A hook point that remembers how wide one row of its activations is (None: no fixed width)."""
    made = HookPoint()
    made.width = width
    return made


def active(*points: nn.Module) -> bool:
    """Whether anyone reads or writes at one of the points.

    The type is compared because a dictionary spliced in takes the hook point's place in the module tree.
    """
    for p in points:  # noqa: SIM110
        if type(p) is not HookPoint or p._forward_hooks or p._backward_hooks:
            return True  # a loop, not any(): this runs at every point of every forward
    return False


def borrow(part: nn.Module, **modules: Any) -> None:
    """Keep stock modules within reach without registering them: names, state dict and modules stay the user's own."""
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
        """List anew what stands where the hook points are; called whenever the module tree changed."""
        inside = ((name.rpartition(".")[2], module) for name, module in self.named_modules())
        self._points = tuple(module for name, module in inside if name.startswith("hook_"))

    def is_unhooked(self) -> bool:
        """Whether nobody reads or writes anywhere inside."""
        return not active(*self._points)
