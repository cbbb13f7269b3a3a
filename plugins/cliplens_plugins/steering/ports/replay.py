"""Keeps outputs of modules in a plain pass and returns them in the steered pass, so that they are computed once."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn

_RUN = object()


class Replay:
    """Two passes over the same inputs, the second of which computes only what an edit can change.

    Calls of a module are counted. In the second pass call n of a module returns what call n returned in the first,
    without running; hooks on the module still see it. Calls beyond those of the first pass run.
    """

    def __init__(self, unchanged: Sequence[nn.Module], edited: nn.Module | None = None) -> None:
        self._unchanged = list(unchanged)
        """Modules whose output an edit does not change."""
        self._edited = edited
        """The module whose first call is edited; its later calls are not."""
        self._kept: dict[nn.Module, list[Any]] = {}

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Keep every output until the context closes."""
        modules = [*self._unchanged, *([self._edited] if self._edited is not None else [])]
        self._kept = {module: [] for module in modules}
        with ExitStack() as stack:
            for module in modules:
                _forward_replaced(module, _recorded(module.forward, self._kept[module]), stack)
            yield

    @contextmanager
    def replaying(self) -> Iterator[None]:
        """Return the kept outputs until the context closes, then forget them."""
        with ExitStack() as stack:
            stack.callback(self._kept.clear)
            for module, outputs in self._kept.items():
                given = [_RUN, *outputs[1:]] if module is self._edited else outputs
                _forward_replaced(module, _replayed(module.forward, iter(given)), stack)
            yield


def _recorded(forward: Callable[..., Any], outputs: list[Any]) -> Callable[..., Any]:
    def recorded(*args: Any, **kwargs: Any) -> Any:
        outputs.append(forward(*args, **kwargs))
        return outputs[-1]

    return recorded


def _replayed(forward: Callable[..., Any], outputs: Iterator[Any]) -> Callable[..., Any]:
    def replayed(*args: Any, **kwargs: Any) -> Any:
        kept = next(outputs, _RUN)
        return forward(*args, **kwargs) if kept is _RUN else kept

    return replayed


def _forward_replaced(module: nn.Module, forward: Callable[..., Any], stack: ExitStack) -> None:
    had, before = "forward" in module.__dict__, module.__dict__.get("forward")

    def put_back() -> None:
        if had:
            module.__dict__["forward"] = before
        else:
            module.__dict__.pop("forward", None)

    module.__dict__["forward"] = forward
    stack.callback(put_back)
