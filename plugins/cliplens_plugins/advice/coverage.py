"""Find concepts that are too rare in the pairs, compared with a target set of pairs."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.stats import binom, chi2

from cliplens.statistics import benjamini_hochberg

LEAST_RATIO = 0.5
"""Ratio of shares below which a concept is under-covered."""


@dataclass(frozen=True)
class Coverage:
    """The share of each concept in the pairs, divided by its share in the target set."""

    ratio: Float[np.ndarray, " d_sae"]
    """The ratio of the shares; nan if no pair of the target set has the concept."""
    low: Float[np.ndarray, " d_sae"]
    high: Float[np.ndarray, " d_sae"]
    """Limits of the 95 % interval, from the Poisson count in the pairs; the share in the target set counts as exact."""
    q: Float[np.ndarray, " d_sae"]
    """False discovery rate at which the ratio is significantly below one half."""

    @property
    def under_covered(self) -> Bool[np.ndarray, " d_sae"]:
        """Mask of the concepts whose ratio is below one half, at a false discovery rate of 5 %."""
        return (self.ratio < LEAST_RATIO) & (np.nan_to_num(self.q, nan=1.0) <= 0.05)


def coverage(
    count: Int[np.ndarray, " d_sae"], pairs: int, target_count: Int[np.ndarray, " d_sae"], target_pairs: int
) -> Coverage:
    """Compare the shares of concepts in pairs and in a target set. A pair has a concept if its latent fires.

    Args:
        count: number of pairs with each concept.
        pairs: number of pairs.
        target_count: number of pairs of the target set with each concept.
        target_pairs: number of pairs of the target set.

    The p-value is that of a conditional binomial test: the probability of so few pairs with the concept, if its true
    share were half of that in the target set. Both counts are random.

    >>> coverage(np.array([1]), 100, np.array([40]), 100).under_covered.tolist()
    [True]
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        share = target_count / target_pairs
        ratio = np.where(target_count > 0, count / pairs / share, np.nan)
        low = chi2.ppf(0.025, 2 * count) / 2
        high = chi2.ppf(0.975, 2 * (count + 1)) / 2
        bounds = [np.where(target_count > 0, np.nan_to_num(x) / pairs / share, np.nan) for x in (low, high)]
    own = LEAST_RATIO * pairs / (LEAST_RATIO * pairs + target_pairs)
    p = np.where(target_count > 0, binom.cdf(count, count + target_count, own), np.nan)
    return Coverage(ratio, bounds[0], bounds[1], benjamini_hochberg(p))
