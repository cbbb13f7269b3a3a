"""Activations of one batch of pairs, by site."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from cliplens.errors import NonFiniteError
from cliplens.pairs import Decoded
from cliplens.sites import Site


@dataclass(frozen=True)
class SiteActs:
    """Activations of a batch at one site, at the chosen tokens. Positions from `lengths` on are padding."""

    acts: Float[Tensor, "pair pos d_in"]
    lengths: Int64[Tensor, " pair"]
    token: str
    """The token choice: cls, eot, single (the hook has one position), mean, patches or all."""
    special: Int64[Tensor, " pair"] | None = None
    """With "all": the position of CLS or EOT in each sample."""

    @property
    def one_each(self) -> bool:
        """Whether every pair has exactly one position."""
        return self.acts.shape[1] == 1

    def rows(self) -> Float[Tensor, "row d_in"]:
        """Return the activations without padding, concatenated over pairs."""
        return self.acts[:, 0] if self.one_each else self.acts[self.real]

    @property
    def real(self) -> Bool[Tensor, "pair pos"]:
        """Mask that is True at positions that are not padding."""
        return torch.arange(self.acts.shape[1], device=self.acts.device) < self.lengths[:, None]


@dataclass(frozen=True)
class ReadBatch:
    """Activations at every site of the usable pairs of one batch, with the pairs as decoded."""

    decoded: Decoded
    sites: Mapping[Site, SiteActs]
    tokens: Int64[Tensor, "pair context"] | None
    truncated: int


def mean(found: SiteActs) -> SiteActs:
    """Return the mean over the positions of each pair that are not padding."""
    total = (found.acts * found.real[:, :, None]).sum(1, keepdim=True) / found.lengths[:, None, None]
    return SiteActs(total, full_lengths(total), "mean")


def full_lengths(acts: Float[Tensor, "pair pos d_in"]) -> Int64[Tensor, " pair"]:
    """Return the lengths of pairs without padding."""
    return torch.full((len(acts),), acts.shape[1], dtype=torch.int64, device=acts.device)


def finite(batch: ReadBatch, number: int) -> None:
    """Check that all activations of a batch are finite.

    Raises:
        NonFiniteError: some are nan or inf; the message names the site, the batch and the first bad pair.
    """
    for site, found in batch.sites.items():
        low, high = torch.aminmax(found.acts)  # One pass is enough, because nan propagates.
        if torch.isfinite(low) and torch.isfinite(high):
            continue
        bad = ~torch.isfinite(found.acts).flatten(1).all(1)
        first = batch.decoded.ids[int(bad.nonzero()[0, 0])]
        raise NonFiniteError(
            expected=f"finite activations at {site}",
            found=f"nan or inf in batch {number}, first in pair {first!r}",
            fix="check that pair, or load the model in float32 (half precision overflows)",
        )
