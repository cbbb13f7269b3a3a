"""The Muon optimiser in float32, with matrices of one shape orthogonalised together.

`torch.optim.Muon` computes in bfloat16, which takes three times as long on processors without such instructions. The
test compares the two. Source: https://kellerjordan.github.io/posts/muon/; the scale of the update is that of
`adjust_lr_fn="match_rms_adamw"`, https://arxiv.org/abs/2502.16982.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

_COEFFICIENTS = (3.4445, -4.775, 2.0315)
_STEPS = 5
_SMALLEST = 1e-7


class Muon(torch.optim.Optimizer):
    """Momentum whose update of each matrix is made orthogonal.

    Args:
        parameters: matrices.
        lr: learning rate, as for AdamW.
        weight_decay: decoupled weight decay.
        momentum: decay of the mean of the gradients.
    """

    def __init__(
        self, parameters: Iterable[Tensor], *, lr: float, weight_decay: float = 0.1, momentum: float = 0.95
    ) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Take one step from the gradients."""
        assert closure is None
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape[parameter.shape].append(parameter)
            for parameters in by_shape.values():
                self._update(parameters, group)

    def _update(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        moved = []
        for parameter in parameters:
            assert parameter.grad is not None
            mean = self.state[parameter].setdefault("momentum_buffer", torch.zeros_like(parameter))
            mean.lerp_(parameter.grad, 1 - group["momentum"])
            moved.append(torch.lerp(parameter.grad, mean, group["momentum"]))  # Nesterov
        scale = 0.2 * max(parameters[0].shape) ** 0.5 * group["lr"]
        for parameter, update in zip(parameters, orthogonal(torch.stack(moved)), strict=True):
            parameter.mul_(1 - group["lr"] * group["weight_decay"]).sub_(scale * update)


def orthogonal(matrices: Float[Tensor, "matrix row column"]) -> Float[Tensor, "matrix row column"]:
    """Return the matrices with all singular values near 1 (.7 to 1.2), by Newton-Schulz iteration."""
    a, b, c = _COEFFICIENTS
    wide = matrices if matrices.shape[1] <= matrices.shape[2] else matrices.mT
    wide = wide / wide.norm(dim=(1, 2), keepdim=True).clamp_min(_SMALLEST)
    for _ in range(_STEPS):
        square = wide @ wide.mT
        wide = a * wide + (b * square + c * square @ square) @ wide
    return wide if matrices.shape[1] <= matrices.shape[2] else wide.mT
