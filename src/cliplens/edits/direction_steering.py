"""Steer along one direction of activation space, as a baseline for dictionaries."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cliplens.edits.steering import Steering, positions_mask
from cliplens.sites import Modality, Site


@dataclass(frozen=True, eq=False)
class DirectionSteering(Steering):
    """Adds `dose * direction` to activations; the direction may be a difference of means or any other vector."""

    direction: Float[Tensor, " d_in"]
    dose: float = 1.0
    positions: Any = "all"
    at: tuple[Site, ...] = ()

    @property
    def d_in(self) -> int:
        """Return the number of elements of the direction."""
        return len(self.direction)

    @property
    def sites(self) -> tuple[Site, ...]:
        """Return `at`."""
        return self.at

    @property
    def idle(self) -> bool:
        """Return whether the dose is 0."""
        return self.dose == 0

    def at_dose(self, dose: float) -> "DirectionSteering":
        """Return the same direction at another dose."""
        return replace(self, dose=dose)

    def __call__(
        self, acts: Float[Tensor, "batch pos d_in"], modality: Modality, special: Int[Tensor, " batch"] | None = None
    ) -> Float[Tensor, "batch pos d_in"]:
        if self.idle:
            return acts
        moved = acts + (self.dose * self.direction).to(acts)
        where = positions_mask(self.positions, acts.shape[0], acts.shape[1], special)
        return moved if where is None else torch.where(where.to(acts.device)[..., None], moved, acts)
