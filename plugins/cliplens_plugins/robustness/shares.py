"""Which classes of latents an attack moves: the share of the change, divided by the share of the clean energy.

A class is compared with many random sets of latents. If it is one more random set, the interval of the difference
leaves out 0 in at most 5 % of cases, because the class must lie outside nearly all sets on the same side.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cliplens_plugins.robustness.eye import Reader

DRAWS = 500
"""Bootstrap samples of pictures."""
_TAIL = 40
"""One of so many lies in a tail of 2.5 %."""
_TIE = 1e-9
"""Difference of two ratios below which they are equal."""
_GROUPS = 64
"""Groups of latents whose energies are summed at once, to bound memory."""
Interval = tuple[float, float, float]


@torch.no_grad()
def energies(
    reader: Reader,
    masks: Bool[np.ndarray, "group d_sae"],
    acts: Float[Tensor, "sample pos d_in"],
    clean: Float[Tensor, "sample pos d_in"] | None = None,
) -> Float[np.ndarray, "sample group_and_all"]:
    """Return, per picture, |z|^2 of each group of latents, or |z - z(clean)|^2; the last column is of all latents.

    Args:
        reader: the dictionary.
        masks: groups of latents; they may overlap.
        acts: activations of the pictures.
        clean: activations to subtract the codes of; None subtracts nothing.
    """
    codes = reader.codes(acts.flatten(0, 1)).double()
    if clean is not None:
        codes = codes - reader.codes(clean.flatten(0, 1)).double()
    squares = codes.square().unflatten(0, acts.shape[:2]).sum(1)
    parts = [squares @ part.to(squares).T for part in torch.as_tensor(masks).split(_GROUPS)]
    return torch.cat([*parts, squares.sum(1, keepdim=True)], 1).cpu().numpy()


@dataclass(frozen=True)
class Ratios:
    """Share of the change divided by share of the clean energy, per group of latents, with bootstrap samples.

    1: the group moves as much as its energy suggests. nan: the group has no clean energy, or nothing moved.
    """

    value: Float[np.ndarray, " group"]
    drawn: Float[np.ndarray, "bootstrap group"]
    """The same over samples of pictures with replacement."""

    @classmethod
    def of(
        cls,
        moved: Float[np.ndarray, "sample group_and_all"],
        clean: Float[np.ndarray, "sample group_and_all"],
        *,
        draws: int = DRAWS,
        seed: int = 0,
    ) -> "Ratios":
        """Return the ratios of energies.

        Args:
            moved: from `energies` of the change.
            clean: from `energies` of the clean pictures, in step.
            draws: bootstrap samples of pictures.
            seed: seed of the bootstrap.
        """
        count = len(moved)
        rows = np.random.default_rng(seed).integers(0, count, (draws, count))
        times = np.zeros((draws, count))
        np.add.at(times, (np.arange(draws)[:, None], rows), 1.0)
        return cls(_ratio(moved.sum(0), clean.sum(0)), _ratio(times @ moved, times @ clean))

    def share(self, group: int) -> Interval:
        """Return the ratio of a group with its 95 % interval over pictures."""
        known = self.drawn[:, group][~np.isnan(self.drawn[:, group])]
        low, high = np.quantile(known, [0.025, 0.975]) if len(known) else (np.nan, np.nan)
        return float(self.value[group]), float(low), float(high)

    def typical(self, sets: Sequence[int]) -> Interval:
        """Return the median of groups, with the range of 95 % of them; nan if none has clean energy."""
        known = self.value[sets][~np.isnan(self.value[sets])]
        if not len(known):
            return np.nan, np.nan, np.nan
        low, middle, high = np.quantile(known, [0.025, 0.5, 0.975])
        return float(middle), float(low), float(high)

    def beyond(self, group: int, sets: Sequence[int]) -> Interval:
        """Return the ratio of a group minus the median of random sets, with a 95 % interval over pictures and sets.

        The interval is of the difference to one set drawn at random, over one sample of pictures drawn at random. nan:
        the ratio is unknown, or fewer than 39 sets have clean energy, so that no interval has a level of 95 %.

        Args:
            group: column of the group.
            sets: columns of the random sets.
        """
        known = [n for n in sets if not np.isnan(self.value[n])]
        outside = (len(known) + 1) // _TAIL
        if outside == 0 or np.isnan(self.value[group]):
            return np.nan, np.nan, np.nan
        differences = self.drawn[:, [group]] - self.drawn[:, known]
        differences = differences[~np.isnan(differences)]
        differences[np.abs(differences) < _TIE] = 0.0
        tail = outside / len(known)
        low = np.quantile(differences, tail, method="lower")
        high = -np.quantile(-differences, tail, method="lower")
        return float(self.value[group] - np.median(self.value[known])), float(low), float(high)


def relative_shares(
    moved: Float[np.ndarray, "sample group_and_all"],
    clean: Float[np.ndarray, "sample group_and_all"],
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> list[Interval]:
    """Return per group its share of the change divided by its share of the clean energy, with intervals by picture.

    1: the group moves as much as its energy suggests. nan: the group has no clean energy, or nothing moved.

    Args:
        moved: from `energies` of the change.
        clean: from `energies` of the clean pictures, in step.
        draws: bootstrap samples of pictures.
        seed: seed of the draws.

    >>> clean = np.array([[1.0, 4.0], [1.0, 4.0]])
    >>> relative_shares(np.array([[1.0, 2.0], [1.0, 2.0]]), clean)
    [(2.0, 2.0, 2.0)]
    """
    found = Ratios.of(moved, clean, draws=draws, seed=seed)
    return [found.share(group) for group in range(len(found.value))]


def _ratio(moved: np.ndarray, clean: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        share = moved[..., :-1] / moved[..., -1:] / (clean[..., :-1] / clean[..., -1:])
    return np.where(np.isfinite(share), share, np.nan)
