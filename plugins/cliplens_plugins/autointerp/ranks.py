"""Compute rank tests for many latents at once from matches with positive and negative samples, one row per latent."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.special import comb

SHOWN = 4
"""Number of top samples next to the intruder in the intruder test."""


@dataclass(frozen=True)
class Ranks:
    """Ranks of the positives among the negatives: `below` counts negatives < a positive, `upto` negatives <= it.

    `matches` are the positives; entries where `valid` is false are padding.
    """

    matches: Float[np.ndarray, "latent positive"]
    valid: Bool[np.ndarray, "latent positive"]
    below: Float[np.ndarray, "latent positive"]
    upto: Float[np.ndarray, "latent positive"]
    negatives: Float[np.ndarray, " latent"]
    """Number of negatives of each latent; nan where a match is nan."""

    @classmethod
    def of(
        cls,
        positive: Float[np.ndarray, "latent positive"],
        valid: Bool[np.ndarray, "latent positive"],
        negative: Float[np.ndarray, "latent negative"],
        kept: Bool[np.ndarray, "latent negative"],
    ) -> "Ranks":
        """Rank the valid positives among the kept negatives of each latent."""
        unknown = (np.isnan(positive) & valid).any(axis=1) | (np.isnan(negative) & kept).any(axis=1)
        ordered = torch.from_numpy(np.where(kept, negative, np.inf)).sort(dim=1).values
        values = torch.from_numpy(np.ascontiguousarray(positive))
        count = kept.sum(axis=1)
        below, upto = (
            np.minimum(torch.searchsorted(ordered, values, right=right).numpy(), count[:, None]).astype(np.float64)
            for right in (False, True)
        )
        return cls(positive, valid, below, upto, np.where(unknown, np.nan, count))

    def auroc(self) -> Float[np.ndarray, " latent"]:
        """Return each latent's AUROC; ties count one half. nan without positives or negatives, or with a nan match."""
        positives = self.valid.sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = ((self.below + self.upto) * self.valid).sum(axis=1) / positives
            return np.where((positives > 0) & (self.negatives > 0), mean / (2 * self.negatives), np.nan)

    def intruder(self) -> Float[np.ndarray, " latent"]:
        """Return the probability that a random negative matches less than all of `SHOWN` random positives.

        The expectation over all choices is exact: the i-th lowest of n positives is the lowest of those chosen in
        C(n - i, SHOWN - 1) of C(n, SHOWN) choices. Ties count as errors. nan with fewer than `SHOWN` positives or
        without negatives.
        """
        below = np.sort(np.where(self.valid, self.below, np.inf), axis=1)  # ranks rise with the matches
        positives = self.valid.sum(axis=1)
        place = np.arange(1, self.below.shape[1] + 1)
        chosen = comb(np.maximum(positives[:, None] - place, 0), SHOWN - 1)
        held = np.where(place <= positives[:, None], below, 0.0)
        with np.errstate(invalid="ignore", divide="ignore"):
            share = (chosen * held).sum(axis=1) / comb(positives, SHOWN) / self.negatives
            return np.where((positives >= SHOWN) & (self.negatives > 0), share, np.nan)


def auroc_rows(
    positive: Float[np.ndarray, "latent positive"],
    valid: Bool[np.ndarray, "latent positive"],
    negative: Float[np.ndarray, "latent negative"],
    kept: Bool[np.ndarray, "latent negative"] | None = None,
) -> Float[np.ndarray, " latent"]:
    """Return the AUROC of each row's valid positives against its kept negatives (all by default).

    >>> auroc_rows(np.array([[0.9, 0.2]]), np.array([[True, True]]), np.array([[0.1, 0.5]]))
    array([0.75])
    """
    kept = np.ones(negative.shape, dtype=bool) if kept is None else kept
    return Ranks.of(positive, valid, negative, kept).auroc()
