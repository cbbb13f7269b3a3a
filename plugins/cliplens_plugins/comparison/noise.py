"""Decide whether two configurations differ by more than chance: between seeds, and between samples of pictures.

Two rules have to agree. (1) The difference is larger than between dictionaries that differ by their seed only: more
than t s sqrt(1/n_a + 1/n_b), with s the standard deviation over seeds and t of its degrees of freedom. Of s of the two
configurations alone and s pooled over all, the one with the larger bound counts: a few seeds that happen to agree make
the first too small, and configurations that vary less than these two the second. For two single dictionaries and many
seeds the bound is 1.96 sqrt(2) s (arXiv 2605.18229, reseed noise). A share of latents has steps, so that all seeds may
agree by chance; s is then at least the binomial one. (2) The difference is larger than over other pictures: the paired
bootstrap by picture. Both hold the level over all figures together (Bonferroni), so that of pairs of configurations
that do not differ at most 5 % are called different in any figure.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from jaxtyping import Float
from scipy.stats import norm
from scipy.stats import t as student

Verdict = Literal[
    "different", "within reseed noise", "within sampling noise", "not comparable", "not measured", "no seeds"
]
LEVEL = 0.05
LARGE = 1_000_000
"""Degrees of freedom of a deviation that is known."""
NAN, INF = float("nan"), float("inf")


@dataclass(frozen=True)
class Noise:
    """The standard deviation of a figure over seeds, and its degrees of freedom; nan and 0 where there are no seeds."""

    deviation: float
    freedom: int

    def bound(self, n_a: int, n_b: int, figures: int = 1) -> float:
        """Return the largest difference between means over `n_a` and `n_b` seeds that chance explains.

        Args:
            n_a: number of seeds of one configuration.
            n_b: number of seeds of the other one.
            figures: number of figures that are compared.

        Returns:
            The difference, in the unit of the figure; nan where the deviation is not known.

        >>> round(Noise(1.0, 10_000).bound(1, 1), 2), round(1.96 * 2**0.5, 2)
        (2.77, 2.77)
        """
        if not self.freedom:
            return NAN
        return _quantile(figures, self.freedom) * self.deviation * float(np.sqrt(1 / n_a + 1 / n_b))


@cache
def _quantile(figures: int, freedom: int) -> float:
    """Return the quantile of Student's t that one of several figures exceeds at the level."""
    return float(student.ppf(1 - LEVEL / (2 * figures), freedom))


def pooled(groups: Sequence[Sequence[float]]) -> Noise:
    """Return the pooled standard deviation within groups of seeds; groups of one say nothing.

    >>> pooled([[1.0, 3.0], [5.0]])
    Noise(deviation=1.4142135623730951, freedom=1)
    """
    held = [np.asarray(g, dtype=np.float64) for g in groups]
    known = [k for g in held if len(k := g[~np.isnan(g)]) > 1]
    freedom = sum(len(g) - 1 for g in known)
    if not freedom:
        return Noise(NAN, 0)
    return Noise(float(np.sqrt(sum(((g - g.mean()) ** 2).sum() for g in known) / freedom)), freedom)


def pseudo_values(means: Sequence[float]) -> list[float]:
    """Return the jackknife's pseudo-values of a mean over pairs of seeds; nan with fewer than three seeds.

    The means of two seeds share their pair, so the deviation of the means is too small for that of the figure; with two
    seeds it is 0. The pseudo-values have the same mean, and the deviation that independent values would have.

    Args:
        means: the mean over its pairs with the other seeds, for each seed.

    >>> [round(value, 9) for value in pseudo_values([0.4, 0.5, 0.6])]
    [0.1, 0.5, 0.9]
    >>> pseudo_values([0.4, 0.4])
    [nan, nan]
    """
    n, mean = len(means), float(np.mean(means))
    if n < 3:
        return [NAN] * n
    return [mean + 2 * (n - 1) / (n - 2) * (one - mean) for one in means]


def reseed_bound(own: Noise, every: Noise, n_a: int, n_b: int, *, floor: float = 0.0, figures: int = 1) -> float:
    """Return the largest difference between the means of two configurations that chance of seeds explains.

    Args:
        own: noise of the two configurations.
        every: noise pooled over all comparable configurations.
        n_a: number of seeds of one of the two.
        n_b: number of seeds of the other one.
        floor: the least standard deviation over seeds, from `binomial_deviation`; 0 for a figure without steps.
        figures: number of figures that are compared.

    Returns:
        The difference, in the unit of the figure; nan where neither noise is known.
    """
    known = [noise for noise in (own, every) if noise.freedom]
    if not known:
        return NAN
    return max(noise.bound(n_a, n_b, figures) for noise in (*known, Noise(floor, LARGE)))


def binomial_deviation(share: float, of: int) -> float:
    """Return the standard deviation that a share of latents has if each latent of a seed is drawn for itself.

    One latent of each kind is added, so that a share of 0 or 1 has a deviation too.

    Args:
        share: the share, in [0, 1].
        of: number of latents.

    >>> round(binomial_deviation(0.5, 100), 3), round(binomial_deviation(1.0, 18), 3)
    (0.05, 0.051)
    """
    if not of or np.isnan(share):
        return 0.0
    smoothed = (share * of + 1) / (of + 2)
    return float(np.sqrt(smoothed * (1 - smoothed) / of))


def sampling_bound(deviation: float, figures: int = 1) -> float:
    """Return the largest difference that another sample of pictures explains, from the deviation of its replicates."""
    return float(norm.ppf(1 - LEVEL / (2 * figures))) * deviation


def decide(difference: float, reseed: float, sampling: float) -> Verdict:
    """Return the verdict on a difference, from the two bounds; nan where one is not known.

    >>> decide(0.3, reseed=0.1, sampling=0.2), decide(-0.15, reseed=0.1, sampling=0.2)
    ('different', 'within sampling noise')
    """
    if np.isnan(difference):
        return "not measured"
    if np.isnan(reseed):
        return "no seeds"
    if not abs(difference) > reseed:
        return "within reseed noise"
    return "different" if abs(difference) > sampling else "within sampling noise"


def interval(
    value: float, drawn: Float[np.ndarray, " replicate"], bounds: tuple[float, float] = (-INF, INF)
) -> tuple[float, float]:
    """Return the 95 % interval of a figure from its replicates, moved so that their mean is the figure.

    Replicates are biased where a figure is no mean: a sample with repeated pictures has less variance about its own
    mean, and rare latents do not fire in it. Moved, they may pass the range of the figure. The interval ends there; as
    the true value lies in the range, this costs no coverage.

    Args:
        value: the figure.
        drawn: the figure over other samples.
        bounds: its least and its largest possible value.

    >>> interval(5.0, np.arange(41.0))
    (-14.0, 24.0)
    >>> interval(5.0, np.arange(41.0), (0.0, 20.0))
    (0.0, 20.0)
    """
    known = drawn[~np.isnan(drawn)]
    if len(known) < 2 or np.isnan(value):
        return NAN, NAN
    low, high = np.clip(value + np.quantile(known - known.mean(), [0.025, 0.975]), *bounds)
    return float(low), float(high)
