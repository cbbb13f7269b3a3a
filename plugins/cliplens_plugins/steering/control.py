"""The control of an edit: a random direction of the same size."""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from cliplens.sites import Modality, Site
from cliplens_plugins.steering.derived import DerivedSteering
from cliplens_plugins.steering.directions import random_direction


@dataclass(frozen=True, eq=False)
class RandomControl(DerivedSteering):
    """Moves each activation as far as another steering does, all in one random direction.

    Activations that the other steering leaves alone stay as they are, bit for bit.
    """

    seed: int = 0

    @property
    def d_in(self) -> int:
        """Return the width of the activations."""
        return self.of.d_in

    @property
    def sites(self) -> tuple[Site, ...]:
        """Return the sites of the other steering."""
        return self.of.sites

    def __call__(
        self, acts: Float[Tensor, "batch pos d_in"], modality: Modality, special: Int[Tensor, " batch"] | None = None
    ) -> Float[Tensor, "batch pos d_in"]:
        return acts + random_direction(self.of(acts, modality, special) - acts, self.seed)
