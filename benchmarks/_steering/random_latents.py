"""Edit random latents as an edit of mean codes edits its own: as many, by the same amounts, firing as often."""

import numpy as np
import torch
from torch import Tensor

from _steering.methods import Chosen, Moved
from cliplens.edits import LatentSteering, add
from cliplens.sites import Modality
from cliplens_plugins.steering import MeanCodes

_NEAREST = 5


def latents_and_random(chosen: Chosen, modality: Modality, attribute: str, few: int, seed: int) -> dict[str, Moved]:
    """Return two edits: the difference of mean codes in a few latents, and the same in matched random latents.

    The random latents are drawn for each pair of values: for each latent, one of the five nearest in firing rate that
    do not correlate with the attribute, none of them twice.
    """
    mean_codes = chosen.mean_codes(modality, attribute)
    firing = (chosen.codes[modality].dense() > 0).double().mean(0).numpy()
    free = np.setdiff1d(np.flatnonzero(firing > 0), mean_codes.latents)

    def moved_by(random: bool) -> Moved:
        def moved(acts: Tensor, own: int, target: int, dose: float) -> Tensor:
            changed = changes(mean_codes, own, target, few)
            if random:
                drawn = matched(firing, list(changed), free, np.random.default_rng([seed, own, target]))
                changed = dict(zip(drawn, changed.values(), strict=True))
            edits = [add([k], size) for k, size in changed.items()]
            return LatentSteering(chosen.dictionary, edits, dose=dose).rows(acts, modality)

        return moved

    return {"latents": moved_by(random=False), "random latents": moved_by(random=True)}


def changes(mean_codes: MeanCodes, own: int, target: int, few: int) -> dict[int, float]:
    """Return by how much an edit of mean codes changes each of its latents, as `MeanCodes.edits` does."""
    gap = torch.nan_to_num(mean_codes.means[target] - mean_codes.means[own])
    chosen = sorted(mean_codes.latents, key=lambda k: -abs(float(gap[k])))[:few]
    return {int(k): float(gap[k]) for k in chosen}


def matched(firing: np.ndarray, latents: list[int], free: np.ndarray, draw: np.random.Generator) -> list[int]:
    """Return one of the free latents for each latent: among the five nearest in firing rate, none twice."""
    left, found = free.tolist(), []
    for k in latents:
        nearest = sorted(left, key=lambda j: (abs(firing[j] - firing[k]), j))[:_NEAREST]
        found.append(int(draw.choice(nearest)))
        left.remove(found[-1])
    return found
