"""Measure success and side effects of steering: shares of samples whose reading changed, with intervals, by dose."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from cliplens.deprecation import renamed_keywords
from cliplens.keys import hashed_uniform
from cliplens.statistics import wilson_interval

Reading = Mapping[str, Int[np.ndarray, " sample"]]
"""Index of the value read off each sample (by a network, zero-shot prompts or a person), by attribute."""


@dataclass(frozen=True)
class Share:
    """A share of samples with its 95 % Wilson interval, all in [0, 1]; nan when there are no samples."""

    share: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Effect:
    """Success and side effects at one dose."""

    dose: float
    success: Share
    """Share of samples read as the target after steering, among those that were not before."""
    changed: Mapping[str, Share]
    """Side effects: share of samples whose reading differs from dose 0, by other attribute."""

    @property
    def worst(self) -> float:
        """Return the largest side effect; 0 when there is no other attribute."""
        return max((s.share for s in self.changed.values()), default=0.0)


def share_of(hits: Bool[np.ndarray, " sample"]) -> Share:
    """Return the share of true entries with its Wilson score interval (1927)."""
    n = len(hits)
    share = float(np.mean(hits)) if n else np.nan
    low, high = wilson_interval(share, n)
    return Share(share, float(low), float(high), n)


def effect(
    before: Reading, after: Reading, attribute: str, target: Int[np.ndarray, " sample"] | int, *, dose: float
) -> Effect:
    """Return success and side effects from readings of the same samples before and after.

    Args:
        before: readings without steering, from the same seeds.
        after: readings with steering.
        attribute: the attribute to change.
        target: its wanted value, for all samples or for each.
        dose: the dose, stored in the result.
    """
    wanted = np.broadcast_to(np.asarray(target), before[attribute].shape)
    rows = before[attribute] != wanted
    changed = {name: share_of((before[name] != after[name])[rows]) for name in before if name != attribute}
    return Effect(dose, share_of((after[attribute] == wanted)[rows]), changed)


@renamed_keywords(resamples="draws")
def dose_slope(
    doses: Sequence[float], hits: Bool[np.ndarray, "dose sample"], *, draws: int = 1000, seed: int = 0
) -> tuple[float, float, float]:
    """Return the least-squares slope of success per unit of dose, and its 95 % bootstrap limits.

    The bootstrap draws samples with all their doses, `draws` times. nan with fewer than two doses or without samples.
    """
    n = hits.shape[1]
    if len(doses) < 2 or n == 0:
        return (np.nan, np.nan, np.nan)
    centred = np.asarray(doses, dtype=float) - np.mean(doses)
    per_sample: Float[np.ndarray, " sample"] = centred @ hits.astype(float) / np.sum(centred**2)
    places = np.arange(draws * n, dtype=np.uint64)
    drawn = (hashed_uniform(places, seed) * n).astype(np.int64).reshape(draws, n)
    low, high = np.quantile(per_sample[drawn].mean(1), [0.025, 0.975])
    return float(per_sample.mean()), float(low), float(high)


def dose_of_breach(effects: Sequence[Effect], limit: float = 0.1) -> float:
    """Return the dose at which the worst side effect exceeds the limit, interpolated linearly; inf if it never does."""
    ordered = sorted(effects, key=lambda e: e.dose)
    for before, after in zip([None, *ordered], ordered, strict=False):
        if after.worst > limit:
            if before is None:
                return after.dose
            part = (limit - before.worst) / (after.worst - before.worst)
            return before.dose + part * (after.dose - before.dose)
    return float("inf")


def best_within(effects: Sequence[Effect], limit: float = 0.1) -> Effect | None:
    """Return the effect with the most success among those with all side effects within the limit; None without one."""
    kept = [e for e in effects if e.worst <= limit]
    return max(kept, key=lambda e: e.success.share) if kept else None
