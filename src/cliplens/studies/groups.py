"""Make groups of latents: one per modality class, and random groups of the same size and firing rates."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Shaped

from cliplens.errors import InputError

ORDER = ("ImgD", "TextD", "CrossD", "undecided", "dead")
BINS = 10


@dataclass(frozen=True)
class LatentGroups:
    """Disjoint groups that together contain every latent.

    >>> groups = LatentGroups.from_classes(np.array(["ImgD", "CrossD", "ImgD"]))
    >>> groups.sizes
    {'ImgD': 2, 'TextD': 0, 'CrossD': 1, 'dead': 0}
    """

    names: tuple[str, ...]
    masks: Bool[np.ndarray, "group d_sae"]

    def __post_init__(self) -> None:
        if len(self.names) != len(self.masks) or not (self.masks.sum(0) == 1).all():
            raise InputError(
                expected="one mask per group, and each latent in exactly one group",
                found=f"{len(self.names)} names, {len(self.masks)} masks and"
                f" {int((self.masks.sum(0) != 1).sum())} latents in no group or in several",
                fix="make the groups with LatentGroups.from_classes",
            )

    @classmethod
    def from_classes(cls, classes: Sequence[str] | Shaped[np.ndarray, " d_sae"]) -> "LatentGroups":
        """Return one group per modality class; `undecided` only if a latent has that class.

        Raises:
            InputError: the name of a class is unknown.
        """
        given = np.asarray(classes).astype(str)
        unknown = sorted(set(given) - set(ORDER))
        if unknown:
            raise InputError(
                expected=f"the classes {', '.join(ORDER)}", found=repr(unknown[0]), fix="use a column of the table"
            )
        names = tuple(name for name in ORDER if name != "undecided" or (given == name).any())
        return cls(names, np.stack([given == name for name in names]))

    @property
    def sizes(self) -> dict[str, int]:
        """The number of latents in each group."""
        return {name: int(mask.sum()) for name, mask in zip(self.names, self.masks, strict=True)}

    def of(self, name: str) -> Bool[np.ndarray, " d_sae"]:
        """Return the mask of a group."""
        return self.masks[self.names.index(name)]


def matched_sets(
    mask: Bool[np.ndarray, " d_sae"],
    rates: Float[np.ndarray, " d_sae"],
    draws: int,
    *,
    seed: int = 0,
    bins: int = BINS,
) -> Bool[np.ndarray, "draw d_sae"]:
    """Return random sets of latents of the same size as a given set, with similar firing rates.

    Living latents (rate above 0) are divided into bins of equal size by their rate. A random set contains, from each
    bin, as many latents as the given set, drawn without replacement. Dead members are left out. If the given set fills
    most of a bin, the random sets contain many of its latents.

    Args:
        mask: the given set.
        rates: firing rate per latent.
        draws: number of random sets.
        seed: seed of the draw.
        bins: number of bins of equal size.

    >>> sets = matched_sets(np.array([True, False, False]), np.array([0.1, 0.1, 0.2]), 5, bins=1)
    >>> sets.sum(1).tolist()
    [1, 1, 1, 1, 1]
    """
    living = np.flatnonzero(rates > 0)
    by_rate = living[np.argsort(rates[living], kind="stable")]
    rng = np.random.default_rng(seed)
    sets = np.zeros((draws, len(mask)), dtype=bool)
    for part in np.array_split(by_rate, max(1, min(bins, len(by_rate)))):
        count = int(mask[part].sum())
        for drawn in sets:
            drawn[rng.choice(part, count, replace=False)] = count > 0
    return sets
