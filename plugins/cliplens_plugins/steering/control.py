"""The control of an edit: a random direction of the same size."""

from dataclasses import dataclass, replace

from jaxtyping import Float, Int
from torch import Tensor

from cliplens.edits import Steering
from cliplens.sites import Modality, Site
from cliplens_plugins.steering.directions import random_direction


@dataclass(frozen=True, eq=False)
class RandomControl(Steering):
    """Moves each activation as far as another steering does, all in one random direction.

    Activations that the other steering leaves alone stay as they are, bit for bit.
    """

    of: Steering
    seed: int = 0

    @property
    def d_in(self) -> int:
        """Return the width of the activations."""
        return self.of.d_in

    @property
    def sites(self) -> tuple[Site, ...]:
        """Return the sites of the other steering."""
        return self.of.sites

    @property
    def idle(self) -> bool:
        """Return whether the other steering changes nothing."""
        return self.of.idle

    def at_dose(self, dose: float) -> "RandomControl":
        """Return the control of the other steering at another dose.

        Raises:
            TypeError: the other steering has no doses.
        """
        if not hasattr(self.of, "at_dose"):
            raise TypeError(f"{type(self.of).__name__} has no doses")
        return replace(self, of=self.of.at_dose(dose))

    def __call__(
        self, acts: Float[Tensor, "batch pos d_in"], modality: Modality, special: Int[Tensor, " batch"] | None = None
    ) -> Float[Tensor, "batch pos d_in"]:
        return acts + random_direction(self.of(acts, modality, special) - acts, self.seed)
