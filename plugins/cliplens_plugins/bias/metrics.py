"""Metrics of bias. Groups come from labels, never from the model under study."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cliplens.errors import InputError
from cliplens.statistics import auroc, exact_interval, wilson_interval

Reference = Literal["uniform", "pool"]
Labels = Int[np.ndarray, " item"]
_SPREAD = 1e-12
"""Standard deviation below which values differ by rounding only."""


@dataclass(frozen=True)
class GroupAccuracy:
    """Accuracy of each combination (cell) of target and group; nan for an empty cell."""

    cells: Float[np.ndarray, "target group"]
    mean: float
    """Share of all items that are classified correctly."""

    @property
    def worst(self) -> float:
        """The lowest accuracy of a cell: worst-group accuracy."""
        return float(np.nanmin(self.cells))

    @property
    def gap(self) -> float:
        """Mean minus worst."""
        return self.mean - self.worst


def group_accuracy(right: Bool[np.ndarray, " item"], target: Labels, group: Labels) -> GroupAccuracy:
    """Return the accuracy of each combination of target and group, the lowest of these, and its gap to the mean.

    >>> found = group_accuracy(np.array([True, False]), np.array([0, 0]), np.array([0, 1]))
    >>> found.worst, found.gap
    (0.0, 0.5)

    Source: Sagawa et al., arXiv 1911.08731.
    """
    _check(target, group, right)
    cells = np.full((int(target.max()) + 1, int(group.max()) + 1), np.nan)
    for y, g in {(int(y), int(g)) for y, g in zip(target, group, strict=True)}:
        cells[y, g] = right[(target == y) & (group == g)].mean()
    return GroupAccuracy(cells, float(right.mean()))


def accuracy_intervals(
    right: Bool[np.ndarray, " item"], target: Labels, group: Labels, level: float = 0.95
) -> dict[str, tuple[float, float, float]]:
    """Return mean, worst group and gap of the accuracy, each with its limits.

    The interval of the worst group goes from the lowest lower limit of a cell to the lowest upper limit, by the exact
    intervals of Clopper and Pearson with Bonferroni's correction for the number of cells: with many cells of few
    items, Wilson's cover the worst too rarely (in simulations 83 % for 20 cells of 5 items). A bootstrap is no
    alternative: the lowest of several drawn accuracies is lower than the lowest accuracy, and a cell without a hit has
    no spread. The gap lies between the limits of mean and worst group, each at half of the error.

    >>> found = accuracy_intervals(np.array([True, False] * 5), np.array([0] * 10), np.array([0, 1] * 5))
    >>> [round(x, 2) for x in found["worst"]]
    [0.0, 0.0, 0.58]
    """
    found = group_accuracy(right, target, group)
    known = ~np.isnan(found.cells)
    sizes = np.array(
        [((target == y) & (group == g)).sum() for y, g in zip(*np.nonzero(known), strict=True)], dtype=float
    )

    def of_worst(error: float) -> tuple[float, float]:
        low, high = exact_interval(np.rint(found.cells[known] * sizes), sizes, 1 - error / len(sizes))
        return float(low.min()), float(high.min())

    def of_mean(error: float) -> tuple[float, float]:
        low, high = wilson_interval(found.mean, len(right), 1 - error)
        return float(low), float(high)

    error = 1 - level
    (mean_low, mean_high), (worst_low, worst_high) = of_mean(error / 2), of_worst(error / 2)
    gap = found.gap, max(0.0, mean_low - worst_high), mean_high - worst_low
    return {"mean": (found.mean, *of_mean(error)), "worst": (found.worst, *of_worst(error)), "gap": gap}


def worst_group_auc(score: Float[np.ndarray, " item"], positive: Bool[np.ndarray, " item"], group: Labels) -> float:
    """Return the lowest AUROC of a target within one group; nan if no group has positives and negatives.

    Source: the worst-group AUC of arXiv 2509.10809; defined here after descriptions by others.
    """
    found = [auroc(score[(group == g) & positive], score[(group == g) & ~positive]) for g in np.unique(group)]
    return float(np.nanmin(found)) if not np.isnan(found).all() else float("nan")


def max_skew(
    order: Int[np.ndarray, " rank"], group: Labels, k: int, *, n_groups: int, reference: Reference = "uniform"
) -> float:
    """Return MaxSkew@k of a ranking: the largest ln(share of a group among the first k / its reference share).

    Args:
        order: items, best first.
        group: the group of each item.
        k: number of items at the start of the ranking to count.
        n_groups: number of groups.
        reference: "uniform" expects 1 / n_groups of each group; "pool" expects the group's share among all items.

    Returns:
        0 if every group has its share; larger if one is over-represented. A group that is absent from the first k
        counts as 1 / k. With reference "pool", a group that is absent from the pool is left out.

    Raises:
        InputError: k is not from 1 to the number of items.

    Source: Geyik et al., arXiv 1905.01989; p = 1/k for an absent group as in debias-vision-lang (Berg et al.).

    >>> round(max_skew(np.array([0, 1, 2, 3]), np.array([0, 0, 1, 1]), 2, n_groups=2), 3)
    0.693
    """
    if not 1 <= k <= len(order):
        raise InputError(
            expected=f"k from 1 to the number of items, {len(order)}", found=str(k), fix="pass a k in that range"
        )
    top = np.bincount(group[order[:k]], minlength=n_groups) / k
    q = _reference(group, n_groups, reference)
    known = q > 0
    return float(np.log(np.where(top > 0, top, 1 / k)[known] / q[known]).max())


def ndkl(order: Int[np.ndarray, " rank"], group: Labels, *, n_groups: int, reference: Reference = "uniform") -> float:
    """Return NDKL of a ranking: the discounted mean over prefixes of KL(groups in the prefix || reference), in nats.

    Returns:
        0 if every prefix of the ranking has the reference shares; larger is more skewed.

    Source: Geyik et al., arXiv 1905.01989.

    >>> round(ndkl(np.array([0, 1]), np.array([0, 1]), n_groups=2), 3)
    0.425
    """
    ranked = np.eye(n_groups)[group[order]].cumsum(0)
    length = np.arange(1, len(order) + 1)
    shares = ranked / length[:, None]
    q = _reference(group, n_groups, reference)
    with np.errstate(divide="ignore", invalid="ignore"):
        divergence = np.where(shares > 0, shares * np.log(shares / q), 0.0).sum(1)
    discount = 1 / np.log2(length + 1)
    return float((divergence * discount).sum() / discount.sum())


@dataclass(frozen=True)
class Association:
    """Effect size d of an association test, and p of a permutation test; d is nan if the associations do not vary."""

    d: float
    p: float


def association(
    x: Float[Tensor, "x d"],
    y: Float[Tensor, "y d"],
    a: Float[Tensor, "a d"],
    b: Float[Tensor, "b d"],
    *,
    permutations: int = 2000,
    seed: int = 0,
) -> Association:
    """Return the WEAT effect size of two sets of embeddings with two attributes, and its one-sided p.

    s(v) = mean cosine of v with A - mean cosine with B; d = (mean s over X - mean over Y) / deviation of s over both.
    p is the share of random splits of X and Y whose difference is at least the observed one, which is counted as one of
    them.

    Source: Caliskan et al., arXiv 1608.07187. Here embeddings of images or captions take the place of words.
    """
    rows, one, two = (torch.nn.functional.normalize(r.double(), dim=1) for r in (torch.cat([x, y]), a, b))
    s = ((rows @ one.T).mean(1) - (rows @ two.T).mean(1)).cpu().numpy()
    spread = s.std(ddof=1) if len(s) > 1 else 0.0
    found = s[: len(x)].mean() - s[len(x) :].mean()
    shuffled = np.random.default_rng(seed).permuted(np.tile(s, (permutations, 1)), axis=1)
    drawn = shuffled[:, : len(x)].mean(1) - shuffled[:, len(x) :].mean(1)
    p = (1 + (drawn >= found - 1e-12).sum()) / (1 + permutations)
    return Association(float(found / spread) if spread > _SPREAD else float("nan"), float(p))


def parity_difference(predicted: Labels, group: Labels) -> float:
    """Return the largest difference between groups in how often a class is predicted, over all classes, in [0, 1].

    >>> parity_difference(np.array([1, 1, 0, 0]), np.array([0, 0, 1, 1]))
    1.0
    """
    rates = [[(predicted[group == g] == y).mean() for g in np.unique(group)] for y in np.unique(predicted)]
    return float(max(max(r) - min(r) for r in rates))


def equalised_odds(predicted: Labels, target: Labels, group: Labels) -> float:
    """Return the largest difference between groups in the true or the false positive rate of a class, in [0, 1].

    Groups without items of the class, or without items of other classes, are left out of that rate.

    Source: Hardt et al., arXiv 1610.02413.

    >>> equalised_odds(np.array([1, 0]), np.array([1, 1]), np.array([0, 1]))
    1.0
    """
    _check(target, group, predicted)
    worst = 0.0
    for y in np.unique(target):
        for of in (target == y, target != y):
            cells = [of & (group == g) for g in np.unique(group)]
            rates = [(predicted[cell] == y).mean() for cell in cells if cell.any()]
            worst = max(worst, max(rates, default=0.0) - min(rates, default=0.0))
    return float(worst)


def ranking(scores: Float[np.ndarray, " item"]) -> Int[np.ndarray, " rank"]:
    """Return the items in order of falling score; ties keep the order of the items.

    >>> ranking(np.array([0.1, 0.9, 0.9])).tolist()
    [1, 2, 0]
    """
    return np.argsort(-scores, kind="stable")


def _reference(group: Labels, n_groups: int, reference: Reference) -> Float[np.ndarray, " group"]:
    if reference == "uniform":
        return np.full(n_groups, 1 / n_groups)
    return np.bincount(group, minlength=n_groups) / len(group)


def _check(target: np.ndarray, group: np.ndarray, other: np.ndarray) -> None:
    if not len(target) == len(group) == len(other) or not len(target):
        raise InputError(
            expected="targets, groups and predictions of the same number of items, at least one",
            found=f"{len(target)}, {len(group)} and {len(other)}",
            fix="pass one target, one group and one prediction per item",
        )
