"""Sources of the rows of a provider: memory and the cache on disk. `live` adds the model."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from cliplens.errors import InputError, MismatchError
from cliplens.records import PairedActs
from cliplens.sites import MODALITIES, Modality, Site
from cliplens.store.cache import Cache, Keep

Chunk = Mapping[Modality, Float[Tensor, "_ d_in"]]
_BLOCK_ROWS = 1024
_BLOCKS_PER_WINDOW = 64
_MOST_BLOCKS = 2**16


class RowSource(ABC):
    """Activation rows in units. Units can be read in any order; a unit always has the same rows."""

    modalities: tuple[Modality, ...]
    d_in: int

    @property
    @abstractmethod
    def sizes(self) -> Int64[np.ndarray, " unit"]:
        """Number of rows of each unit, over all modalities (an upper bound for rows computed on demand)."""

    @abstractmethod
    def read(self, units: Int64[np.ndarray, " unit"]) -> Iterator[Chunk]:
        """Return the rows of the units, in order, in any dtype. Row i of both modalities belongs to the same pair."""


class MemoryRows(RowSource):
    """Rows in memory."""

    def __init__(self, acts: PairedActs) -> None:
        rows = {m: acts.of(m) for m in MODALITIES}
        self._rows: dict[Modality, Tensor] = {m: r for m, r in rows.items() if r is not None}
        self.modalities = tuple(self._rows)
        self.d_in = next(iter(self._rows.values())).shape[1]
        self._units = -(-len(acts) // _BLOCK_ROWS)
        self._count = len(acts)

    @property
    def sizes(self) -> Int64[np.ndarray, " unit"]:
        starts = np.arange(self._units) * _BLOCK_ROWS
        return (np.minimum(starts + _BLOCK_ROWS, self._count) - starts) * len(self.modalities)

    def read(self, units: Int64[np.ndarray, " unit"]) -> Iterator[Chunk]:
        for unit in units.tolist():
            yield {m: r[unit * _BLOCK_ROWS : (unit + 1) * _BLOCK_ROWS] for m, r in self._rows.items()}


class CachedRows(RowSource):
    """Rows of a cache, in blocks of neighbouring pairs (a harvest shuffles the pairs).

    Args:
        window: rows of a window of the provider; blocks are much smaller.
    """

    def __init__(self, cache: Cache, sites: Mapping[Modality, Site], keep: Keep | None, window: int) -> None:
        self.cache, self.sites = cache, sites
        self.modalities = tuple(sites)
        self.d_in = cache.site(next(iter(sites.values()))).schema.d_in
        per_pair = sum(cache.site(s).schema.context_size for s in sites.values())
        rows = min(_BLOCK_ROWS, max(window // _BLOCKS_PER_WINDOW, 1))
        size = max(rows // per_pair, len(cache) // _MOST_BLOCKS, 1)
        self._blocks = [b for b in cache.blocks(keep, size) if len(b.kept)]

    @property
    def sizes(self) -> Int64[np.ndarray, " unit"]:
        counts = [sum(int(self.cache.counts(b, s).sum()) for s in self.sites.values()) for b in self._blocks]
        return np.array(counts, dtype=np.int64)

    def read(self, units: Int64[np.ndarray, " unit"]) -> Iterator[Chunk]:
        for unit in units.tolist():
            yield {m: self.cache.stored(self._blocks[unit], site) for m, site in self.sites.items()}


def means_of(source: RowSource) -> dict[Modality, Float[Tensor, " d_in"]]:
    """Return the mean row of each modality, summed in float64, as float32."""
    sums = {m: torch.zeros(source.d_in, dtype=torch.float64) for m in source.modalities}
    counts = dict.fromkeys(source.modalities, 0)
    for chunk in source.read(np.arange(len(source.sizes))):
        for modality, rows in chunk.items():
            sums[modality] += rows.sum(0, dtype=torch.float64).cpu()
            counts[modality] += len(rows)
    return {m: (s / max(counts[m], 1)).float() for m, s in sums.items()}


def by_modality(sites: Sequence[Site]) -> dict[Modality, Site]:
    """Return the site of each modality, images first.

    Raises:
        InputError: two sites of one tower, or none.
    """
    out: dict[Modality, Site] = {}
    for site in sorted(sites, key=lambda s: s.modality):
        if site.modality in out:
            raise InputError(
                expected="at most one site per tower",
                found=f"{out[site.modality]} and {site}",
                fix="train one dictionary per site",
            )
        out[site.modality] = site
    if not out:
        raise InputError(expected="a site to read", found="none", fix="pass at least one site")
    return out


def check_same_width(widths: Mapping[Any, int]) -> None:
    """Check that one dictionary can read all sites.

    Raises:
        MismatchError: the sites differ in width.
    """
    if len(set(widths.values())) > 1:
        raise MismatchError(
            expected="sites of the same width for one dictionary",
            found=", ".join(f"{s}: {w}" for s, w in widths.items()),
            fix="choose hook_embedding or hook_projected, which have one width, or one tower only",
        )
