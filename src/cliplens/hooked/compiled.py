"""Read activations with `torch.compile`: the same hooks for every batch, in one graph.

TorchDynamo ignores hooks that are added later. So a second tower is opened over the same weights, with permanent hooks
at the requested points, and the compiled function returns their activations. The graph has one batch size: a smaller
batch is padded and its rows are cut out. So no batch causes a new compilation, and results depend on the batch only.
"""

from collections.abc import Sequence
from types import FunctionType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cliplens.deprecation import renamed_keywords
from cliplens.errors import InputError
from cliplens.hooked.opening import open_tower
from cliplens.hooked.part import Recorder
from cliplens.hooked.tower import HookedTower
from cliplens.sites import Side


class CompiledReading:
    """Compiled `HookedTower.read`, equal up to rounding, for batches of up to `forward_batch` inputs.

    The first call compiles, which takes seconds to a minute. Other hooks and spliced dictionaries are not part of the
    graph: a call raises an error while the tower has some.

    Args:
        model: the stock model.
        tower: the tower whose hooks are named.
        side: side of the tower.
        names: the hooks to read.
        forward_batch: number of inputs the graph is compiled for.
    """

    @renamed_keywords(batch_size="forward_batch")
    def __init__(
        self, model: nn.Module, tower: HookedTower, side: Side, names: Sequence[str], forward_batch: int
    ) -> None:
        tower.check_names(names)
        self.tower, self.names, self.forward_batch = tower, tuple(dict.fromkeys(names)), forward_batch
        own = open_tower(model, side, check=False)
        assert own is not None
        got: dict[str, Tensor] = {}
        for name in self.names:
            own.hook_dict[name].register_forward_hook(Recorder(got, name))
        stop = own.stop_after(self.names)

        def through(inputs: Tensor) -> tuple[Tensor, ...]:
            got.clear()
            own.compute(inputs, stop)
            return tuple(got.pop(name) for name in self.names)

        self._run = torch.compile(_of_its_own(through), fullgraph=True, dynamic=False)

    def __call__(self, inputs: Tensor) -> dict[str, Float[Tensor, "batch pos ..."]]:
        """Return the activations at the hooks, by hook name.

        Raises:
            InputError: the batch is too large, the tower has other hooks or dictionaries, or `torch.compile` cannot
                compile it in one graph.
        """
        free = self.tower.is_unhooked()
        if len(inputs) > self.forward_batch or not free:
            raise InputError(
                expected=f"at most {self.forward_batch} inputs and a tower without other hooks, to read it compiled",
                found=f"{len(inputs)} inputs, {'no hooks' if free else 'hooks or dictionaries in place'}",
                fix="remove the hooks (reset_hooks, reset_saes), or read without compile",
            )
        missing = self.forward_batch - len(inputs)
        filled = torch.cat([inputs, inputs[-1:].expand(missing, *inputs.shape[1:])]) if missing else inputs
        try:
            with self.tower.evaluating():
                read = self._run(self.tower.checked(filled.contiguous()))
        except torch._dynamo.exc.TorchDynamoException as error:
            raise InputError(
                expected=f"a {self.tower.cfg.family} tower that torch.compile can compile in one graph",
                found=f"{type(error).__name__}: {str(error).splitlines()[0]}",
                fix="read without compile",
            ) from error
        return {name: rows[: len(inputs)] for name, rows in zip(self.names, read, strict=True)}


def _of_its_own(function: FunctionType | Any) -> Any:
    """Return a copy of the function with its own code object. torch stores and limits graphs per code object."""
    code = function.__code__.replace()
    return FunctionType(code, function.__globals__, function.__name__, None, function.__closure__)
