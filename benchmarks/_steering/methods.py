"""Edit an embedding from one value of an attribute to another, with methods fitted on the selection split."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from _steering.data import FAINT, FEW, LEAST, Sample
from cliplens.edits import LatentSteering, ablate, add
from cliplens.edits import replace as replaced
from cliplens.records import SparseCodes
from cliplens.sae import Dictionary
from cliplens.sites import Modality
from cliplens.world import FACTORS
from cliplens_plugins.modality import classify_fixed, mds
from cliplens_plugins.steering import (
    MeanCodes,
    best_latents,
    random_direction,
    typical_level,
)


@dataclass(frozen=True, eq=False)
class Chosen:
    """Parameters fitted on the selection split: latents of values, typical levels, means, modality classes."""

    dictionary: Dictionary
    sample: Sample

    @cached_property
    def codes(self) -> dict[Modality, SparseCodes]:
        both = self.dictionary.encode(self.sample.acts)
        return {"image": both.image, "text": both.text}  # type: ignore[dict-item]

    def latents(self, modality: Modality, attribute: str) -> list[int | None]:
        values = self.sample.scenes[attribute]
        return best_latents(self.codes[modality], values, len(FACTORS[attribute].values), least=LEAST)

    def mean_codes(self, modality: Modality, attribute: str) -> MeanCodes:
        values = self.sample.scenes[attribute]
        return MeanCodes(self.codes[modality], values, len(FACTORS[attribute].values), least=FAINT)

    def level(self, modality: Modality) -> np.ndarray:
        return typical_level(self.codes[modality])

    def means(self, modality: Modality, attribute: str) -> Tensor:
        acts, values = self.sample.of(modality), torch.from_numpy(self.sample.scenes[attribute])
        return torch.stack([acts[values == v].mean(0) for v in range(len(FACTORS[attribute].values))])

    @cached_property
    def classes(self) -> np.ndarray:
        return classify_fixed(mds(*(self.codes[m].dense() for m in ("image", "text"))))


Moved = Callable[[Tensor, int, int, float], Tensor]
"""Function of (embeddings, own value, target value, dose) that returns the edited embeddings."""


def methods(chosen: Chosen, modality: Modality, attribute: str, seed: int) -> dict[str, Moved]:
    """Return all methods that edit an embedding from one value of the attribute to another, by name."""
    latents, level = chosen.latents(modality, attribute), chosen.level(modality)
    means, dictionary = chosen.means(modality, attribute), chosen.dictionary
    living = np.flatnonzero(np.nan_to_num(level) > 0)
    shuffled = np.random.default_rng(seed).permutation(living)
    others = [int(k) for k in shuffled if k not in latents][: len(latents)]

    def edited(own: int | None, target: int, dose: float, acts: Tensor, adding_only: bool = False) -> Tensor:
        strength = float(level[target])
        edit = add([target], strength) if adding_only or own is None else replaced([own], [target], strength)
        return LatentSteering(dictionary, [edit], dose=dose).rows(acts, modality)

    def by_latents(acts: Tensor, own: int, target: int, dose: float) -> Tensor:
        return edited(latents[own], latents[target], dose, acts)  # type: ignore[arg-type]

    def by_all_latents(acts: Tensor, own: int, target: int, dose: float) -> Tensor:
        rest = [k for k in latents if k is not None and k != latents[target]]
        edits = [*([ablate(rest)] if rest else []), add([latents[target]], float(level[latents[target]]))]  # type: ignore[list-item,index]
        return LatentSteering(dictionary, edits, dose=dose).rows(acts, modality)

    mean_codes = chosen.mean_codes(modality, attribute)

    def by_mean_codes(most: int | None) -> Moved:
        def moved(acts: Tensor, own: int, target: int, dose: float) -> Tensor:
            return LatentSteering(dictionary, mean_codes.edits(own, target, most), dose=dose).rows(acts, modality)

        return moved

    def by_adding(acts: Tensor, own: int, target: int, dose: float) -> Tensor:
        return edited(None, latents[target], dose, acts, adding_only=True)  # type: ignore[arg-type]

    def by_random_latents(acts: Tensor, own: int, target: int, dose: float) -> Tensor:
        return edited(others[own], others[target], dose, acts)

    def by_random_direction(acts: Tensor, own: int, target: int, dose: float) -> Tensor:
        return acts + random_direction(by_latents(acts, own, target, dose) - acts, seed * 10_007 + own * 101 + target)

    def by_centroids(acts: Tensor, own: int, target: int, dose: float) -> Tensor:
        return acts + dose * (means[target] - means[own])

    def by_difference(acts: Tensor, own: int, target: int, dose: float) -> Tensor:
        rest = torch.cat([means[:target], means[target + 1 :]]).mean(0)
        return acts + dose * (means[target] - rest)

    one_latent_each = {
        "latents: own out, target in": by_latents,
        "latents: all values out, target in": by_all_latents,
        "latents: target in": by_adding,
        "random latents": by_random_latents,
        "random direction, equal norm": by_random_direction,
    }
    whole = {
        **{f"latents: mean codes of {few}": by_mean_codes(few) for few in FEW},
        "latents: mean codes of the attribute's": by_mean_codes(None),
        "centroid swap": by_centroids,
        "difference of means": by_difference,
    }
    known = sum(k is not None for k in latents)
    return {**(one_latent_each if known > 1 else {}), **whole}
