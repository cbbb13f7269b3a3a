"""Which classes of latents an attack moves: the share of the change, divided by the share of the clean energy."""

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cliplens_plugins.robustness.eye import Reader

DRAWS = 500
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
    groups = torch.as_tensor(masks).to(squares)
    return torch.cat([squares @ groups.T, squares.sum(1, keepdim=True)], 1).cpu().numpy()


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
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, len(moved), (draws, len(moved)))
    value = _ratio(moved.sum(0), clean.sum(0))
    drawn = _ratio(moved[rows].sum(1), clean[rows].sum(1))
    found = []
    for group, own in enumerate(value):
        known = drawn[:, group][~np.isnan(drawn[:, group])]
        low, high = np.quantile(known, [0.025, 0.975]) if len(known) else (np.nan, np.nan)
        found.append((float(own), float(low), float(high)))
    return found


def _ratio(moved: np.ndarray, clean: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        share = moved[..., :-1] / moved[..., -1:] / (clean[..., :-1] / clean[..., -1:])
    return np.where(np.isfinite(share), share, np.nan)
