"""Reading with `torch.compile`: the same hooks at every batch, in one graph.

TorchDynamo does not look at hooks that come and go. So a second tower is opened over the same weights, the hooks asked
for stay on it for good, and what they see is returned from the compiled function. One graph serves one batch size; a
smaller batch is filled up and its own rows are kept, so that no batch is compiled for by itself, and what a batch gives
depends on nothing but the batch.
"""

from collections.abc import Sequence
from types import FunctionType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cliplens.errors import InputError
from cliplens.hooked.opening import open_tower
from cliplens.hooked.part import Recorder
from cliplens.hooked.tower import HookedTower
from cliplens.sites import Side


class CompiledReading:
    """What `HookedTower.read` gives, to rounding, for batches of up to `batch_size` rows.

    Compiling happens at the first call and takes from seconds to a minute. Hooks and dictionaries of others are not
    part of the graph: a tower that has some is refused.

    Args:
        model: the stock model.
        tower: the tower whose hooks are named.
        side: which one it is.
        names: the hooks to read.
        batch_size: rows the graph is made for.
    """

    def __init__(self, model: nn.Module, tower: HookedTower, side: Side, names: Sequence[str], batch_size: int) -> None:
        tower.check_names(names)
        self.tower, self.names, self.batch_size = tower, tuple(dict.fromkeys(names)), batch_size
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
        """Activations at the hooks, one row per input.

        Raises:
            InputError: too many inputs at once, someone else reads or writes in the tower, or the tower is one that
                `torch.compile` does not take as a whole.
        """
        free = self.tower.is_unhooked()
        if len(inputs) > self.batch_size or not free:
            raise InputError(
                expected=f"up to {self.batch_size} inputs and a tower without hooks of others, to read it compiled",
                found=f"{len(inputs)} inputs, {'no hooks' if free else 'hooks or dictionaries in place'}",
                fix="take the hooks out first, or read without compile",
            )
        missing = self.batch_size - len(inputs)
        filled = torch.cat([inputs, inputs[-1:].expand(missing, *inputs.shape[1:])]) if missing else inputs
        try:
            with self.tower.evaluating():
                read = self._run(self.tower.checked(filled.contiguous()))
        except torch._dynamo.exc.TorchDynamoException as error:
            raise InputError(
                expected=f"a {self.tower.cfg.family} tower that torch.compile takes as a whole",
                found=f"{type(error).__name__}: {str(error).splitlines()[0]}",
                fix="read without compile",
            ) from error
        return {name: rows[: len(inputs)] for name, rows in zip(self.names, read, strict=True)}


def _of_its_own(function: FunctionType | Any) -> Any:
    """The function with code nobody else has: graphs are kept, and counted, by code object."""
    code = function.__code__.replace()
    return FunctionType(code, function.__globals__, function.__name__, None, function.__closure__)
