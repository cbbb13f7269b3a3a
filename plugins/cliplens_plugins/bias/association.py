"""Measure in which modality of pairs a bias lies: how strongly the group depends on the target in each."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from cliplens.errors import InputError
from cliplens.tasks import nearest_prototype

DRAWS = 500


@dataclass(frozen=True)
class TiedRate:
    """How often the group follows from the target, beyond chance, with its 95 % interval. 0: independent; 1: always."""

    rate: float
    low: float
    high: float

    @property
    def tied(self) -> bool:
        """Whether the whole interval lies above 0."""
        return self.low > 0


@dataclass(frozen=True)
class PairBias:
    """The tied rates of the images and of the captions of the same pairs."""

    image: TiedRate
    text: TiedRate

    @property
    def where(self) -> str:
        """The modality that is biased: `images`, `captions`, `both` or `neither`."""
        names = {(True, True): "both", (True, False): "images", (False, True): "captions", (False, False): "neither"}
        return names[self.image.tied, self.text.tied]


def tied_rate(
    target: Int[np.ndarray, " item"], group: Int[np.ndarray, " item"], *, draws: int = DRAWS, seed: int = 0
) -> TiedRate:
    """Return how often the group follows from the target, beyond chance.

    Each value of the target is matched with its most frequent group on one half of the items, and the match is tested
    on the other half; then the halves change places. So a match that arose by chance does not count. The rate is
    (agreement - chance) / (1 - chance), where chance is the agreement after shuffling. If a share r of the items got
    their group from the target and the others at random, the rate is r. It is Cohen's kappa with a match found on other
    items. With few items per value of the target, some matches are missed and the rate is too low.

    Args:
        target: value of the target per item, from 0.
        group: value of the group per item, from 0.
        draws: bootstrap samples of the items.
        seed: seed of the halves and of the draws.

    Raises:
        InputError: fewer than four items, or not one group per target.
    """
    if len(target) != len(group) or len(target) < 4:
        raise InputError(
            expected="at least four items with a target and a group each", found=f"{len(target)} and {len(group)}",
            fix="pass at least four items, with a target and a group each",
        )  # fmt: skip
    rng = np.random.default_rng(seed)
    half = rng.permutation(len(target)) % 2
    follows = np.empty(len(target), dtype=np.int64)
    for own in (0, 1):
        follows[half == own] = _match(target[half != own], group[half != own])[target[half == own]]
    groups = int(max(group.max(), follows.max())) + 1
    rate = _beyond_chance(follows, group, groups)
    drawn = [_beyond_chance(follows[i], group[i], groups) for i in rng.integers(0, len(target), (draws, len(target)))]
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return TiedRate(rate, float(low), float(high))


def pair_bias(
    image: Float[Tensor, "pair d"],
    text: Float[Tensor, "pair d"],
    target: Float[Tensor, "target d"],
    group: Float[Tensor, "group d"],
    *,
    seed: int = 0,
) -> PairBias:
    """Return the tied rates of pairs. Target and group are read with the model: by the nearest prototype of each.

    Reading errors lower the rates. A caption that does not mention the group is still read as some group, so the rate
    of captions is meaningful only if they mention both.

    Args:
        image: embeddings of the images.
        text: embeddings of the captions, in step.
        target: prototype of each target class.
        group: prototype of each group.
        seed: seed of the halves and of the draws.
    """
    read = [[nearest_prototype(rows, bank).cpu().numpy() for bank in (target, group)] for rows in (image, text)]
    return PairBias(*(tied_rate(t, g, seed=seed) for t, g in read))


def _match(target: np.ndarray, group: np.ndarray) -> Int[np.ndarray, " target"]:
    size = int(target.max()) + 1, int(group.max()) + 1
    counts = np.zeros(size)
    np.add.at(counts, (target, group), 1)
    # Counts are compared with chance; otherwise a frequent group would be matched with every target.
    expected = np.outer(counts.sum(1), counts.sum(0)) / max(counts.sum(), 1)
    found = np.zeros(4096 if size[0] < 4096 else size[0] + 1, dtype=np.int64)
    found[: size[0]] = (counts - expected).argmax(1)
    return found


def _beyond_chance(follows: np.ndarray, group: np.ndarray, groups: int) -> float:
    agreed = float((follows == group).mean())
    shares = [np.bincount(values, minlength=groups) / len(group) for values in (follows, group)]
    chance = float(shares[0] @ shares[1])
    return (agreed - chance) / (1 - chance) if chance < 1 else float("nan")


def prototypes(sentences: Float[Tensor, "value sentence d"]) -> Float[Tensor, "value d"]:
    """Return the mean direction of the sentences of each value."""
    return torch.nn.functional.normalize(sentences.double().mean(1), dim=1)
