"""Endless shuffled batches of activation rows for `SAETrainer`.

An epoch visits every row once. Its units (blocks of a cache, pairs of a live model) are permuted and cut into windows
that fill a preallocated buffer. Batches are drawn from one window while a thread fills the next. The order depends on
the seed and four numbers only, so a resumed provider returns the same batches, bit for bit.
"""

from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from cliplens.errors import InputError, MismatchError, NearestNames
from cliplens.records import PairedActs, Provenance
from cliplens.sites import Modality, Site, as_sites
from cliplens.store.cache import Cache, Keep
from cliplens.store.schedule import check_trainer
from cliplens.store.sources import CachedRows, MemoryRows, RowSource, by_modality, check_same_width, means_of

Means = dict[Modality, Float[Tensor, " d_in"]]
BUFFER_BYTES = 2**30


@dataclass
class _Buffer:
    """A window of rows, and the order in which they are drawn.

    If whole pairs are drawn, `together[i]` holds the positions of the rows of pair i.
    """

    rows: Float[Tensor, "row d_in"]
    together: Int64[Tensor, "pair modality"] | None
    order: Int64[Tensor, " draw"]

    def take(self, start: int, count: int) -> Float[Tensor, "row d_in"]:
        """Return the rows of `count` draws. If pairs are drawn, all images come before all captions."""
        drawn = self.order[start : start + count]
        return self.rows.index_select(0, drawn if self.together is None else self.together[drawn].T.reshape(-1))


class Provider(NearestNames, Iterator[Tensor]):
    """Iterate endlessly over shuffled batches [batch_size, d_in], float32.

    `epoch` is the number of epochs finished before the last batch; `samples`, the number of rows returned. Batches of a
    `paired` provider hold whole pairs: first the images, then the captions of the same pairs in the same order.
    """

    def __init__(
        self,
        source: RowSource,
        *,
        batch_size: int,
        means: Means | None = None,
        provenance: Provenance | None = None,
        seed: int = 0,
        paired: bool = False,
        buffer_rows: int | None = None,
        prefetch: bool = True,
        device: torch.device | str = "cpu",
    ) -> None:
        self.batch_size, self.d_in = batch_size, source.d_in
        self.means, self.provenance = means, provenance
        self.epoch = self.samples = 0
        self._source, self._seed, self.paired, self._prefetch = source, seed, paired, prefetch
        self._trainer_seen = False
        self._sizes = source.sizes
        self._device = torch.device(device)
        capacity = buffer_rows or max(BUFFER_BYTES // (4 * source.d_in), batch_size)
        self._capacity = min(capacity, int(self._sizes.sum()))
        self._together = len(source.modalities) if paired else 1
        self._check()
        self._shift = None if means is None else {m: v.to(self._device) for m, v in means.items()}
        self._window = self._offset = 0
        self._windows = self._plan_epoch(0)
        self._buffer: _Buffer | None = None
        self._spare: Tensor | None = None
        self._pool = ThreadPoolExecutor(1) if prefetch and len(self._windows) > 1 else None
        self._coming: tuple[tuple[int, int], Future[_Buffer]] | None = None

    def __repr__(self) -> str:
        where = (
            "" if self.provenance is None else f" of {self.provenance.model.name}: {' + '.join(self.provenance.sites)}"
        )
        how = ", whole pairs" if self.paired else ""
        centred = "raw" if self.means is None else "centred"
        return (
            f"Provider({self.rows:,} rows{where}, d_in {self.d_in}, {centred}, batches of {self.batch_size}{how},"
            f" epoch {self.epoch}, {self.samples:,} rows given)"
        )

    @classmethod
    def from_cache(
        cls,
        cache: Cache,
        *,
        image: Site | str | None = None,
        text: Site | str | None = None,
        keep: Keep | None = None,
        centre: bool = True,
        batch_size: int = 4096,
        seed: int = 0,
        paired: bool = False,
        buffer_rows: int | None = None,
        device: torch.device | str = "cpu",
    ) -> "Provider":
        """Return a provider of the rows of a cache.

        Args:
            cache: a cache, as returned by `harvest`.
            image: a vision site or its name, or None.
            text: a text site or its name, or None.
            keep: function from keys to a mask of the pairs to keep; None keeps all. Training leaves out pairs for
                scoring.
            centre: subtract the mean of each modality over these pairs.
            batch_size: rows per batch.
            seed: seed of the order.
            paired: draw whole pairs; each batch holds images first, then captions.
            buffer_rows: number of rows shuffled at a time; None takes as many as fit into 1 GiB.
            device: device of the buffer and of the batches.

        Raises:
            MismatchError: the sites differ in width.
            UnknownNameError: a site was not harvested.
        """
        sites = by_modality(as_sites([s for s in (image, text) if s is not None]))
        check_same_width({s: cache.site(s).schema.d_in for s in sites.values()})
        window = buffer_rows or BUFFER_BYTES // (4 * cache.site(next(iter(sites.values()))).schema.d_in)
        source = CachedRows(cache, sites, keep, window)
        return cls(
            source,
            batch_size=batch_size,
            means=means_of(source) if centre else None,
            provenance=cache.provenance(list(sites.values()), centred=centre),
            seed=seed,
            paired=paired,
            buffer_rows=buffer_rows,
            device=device,
        )

    @classmethod
    def from_acts(
        cls,
        acts: PairedActs,
        *,
        centre: bool = True,
        batch_size: int = 4096,
        seed: int = 0,
        paired: bool = False,
        provenance: Provenance | None = None,
        device: torch.device | str = "cpu",
    ) -> "Provider":
        """Return a provider of activations in memory, shuffled over all rows."""
        check_same_width({m: rows.shape[1] for m in ("image", "text") if (rows := acts.of(m)) is not None})
        source = MemoryRows(acts)
        means = means_of(source) if centre else None
        whole = int(source.sizes.sum())
        return cls(
            source,
            batch_size=batch_size,
            means=means,
            provenance=provenance,
            seed=seed,
            paired=paired,
            buffer_rows=whole,
            device=device,
        )

    def reseeded(self, seed: int) -> "Provider":
        """Return a provider of the same rows in the order of another seed, from the beginning.

        Its batches are, bit for bit, those of a provider made with that seed. Means are not computed again, and rows
        that fit into one window are read and kept once for both.
        """
        again = Provider(
            self._source,
            batch_size=self.batch_size,
            means=self.means,
            provenance=self.provenance,
            seed=seed,
            paired=self.paired,
            buffer_rows=self._capacity,
            prefetch=self._prefetch,
            device=self._device,
        )
        if len(self._windows) == 1:
            if self._buffer is None:
                self._buffer = self._fill(self._windows[0], (0, 0), None)
            again._buffer = replace(self._buffer, order=again._order(len(self._buffer.order), (0, 0)))
        return again

    @property
    def rows(self) -> int:
        """Number of rows of an epoch, over all modalities (an upper bound for rows computed on demand)."""
        return int(self._sizes.sum())

    @torch.no_grad()
    def __next__(self) -> Float[Tensor, "batch d_in"]:
        """Return the next batch.

        Raises:
            MismatchError: the caller is a SAELens trainer with another batch size.
        """
        if not self._trainer_seen:
            self._trainer_seen = check_trainer(self.batch_size)
        missing = self.batch_size // self._together
        parts: list[Tensor] = []
        while missing:
            buffer = self._current_buffer()
            # Copy now: the buffer may be refilled while the batch continues in the next window.
            parts.append(buffer.take(self._offset, missing).view(self._together, -1, self.d_in))
            self._offset += parts[-1].shape[1]
            missing -= parts[-1].shape[1]
        self.samples += self.batch_size
        whole = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        return whole.reshape(self.batch_size, self.d_in)

    def state_dict(self) -> dict[str, Any]:
        """Return the position in the data, as plain numbers."""
        at = {"epoch": self.epoch, "window": self._window, "offset": self._offset, "samples": self.samples}
        return {**at, **self._identity()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state_dict`: the next batch is, bit for bit, the one that would have followed.

        Raises:
            MismatchError: the state belongs to a provider with other arguments.
        """
        mine = self._identity()
        differs = [f"{k}: {state.get(k)!r} there, {v!r} here" for k, v in mine.items() if state.get(k) != v]
        if differs:
            raise MismatchError(
                expected="the state of a provider with the same arguments",
                found="; ".join(differs),
                fix="make this provider with the arguments of the first one",
            )
        self.epoch, self.samples = int(state["epoch"]), int(state["samples"])
        self._window, self._offset = int(state["window"]), int(state["offset"])
        self._windows = self._plan_epoch(self.epoch)
        self._drop()

    def _identity(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "d_in": self.d_in,
            "batch_size": self.batch_size,
            "buffer_rows": self._capacity,
            "paired": self.paired,
            "seed": self._seed,
        }

    def _current_buffer(self) -> _Buffer:
        """Return the current buffer; move on to the next window if this one is used up."""
        if self._buffer is None:
            self._buffer = self._fetch()
        empty = 0
        while self._offset >= len(self._buffer.order):
            empty = 0 if len(self._buffer.order) else empty + 1
            if empty > len(self._windows):
                raise InputError(
                    expected="at least one row",
                    found="none, because every pair is bad",
                    fix="read the reasons in the quarantine",
                )
            self._advance()
            self._buffer = self._fetch()
        return self._buffer

    def _advance(self) -> None:
        self._window, self._offset = self._window + 1, 0
        if self._window == len(self._windows):
            self.epoch, self._window = self.epoch + 1, 0
            self._windows = self._plan_epoch(self.epoch)

    def _fetch(self) -> _Buffer:
        """Return the next window, filled ahead of time if a thread is used."""
        if self._buffer is not None and len(self._windows) == 1:
            # All rows fit into one window: only the order changes.
            return replace(self._buffer, order=self._order(len(self._buffer.order)))
        due = (self.epoch, self._window)
        if self._coming is not None and self._coming[0] == due:
            buffer = self._coming[1].result()
        else:
            self._wait_for_fill()
            buffer = self._fill(self._windows[self._window], due, None)
        used, self._coming = self._buffer, None
        if self._pool is not None:
            following = self._following()
            spare = None if used is None else used.rows
            self._coming = (following[0], self._pool.submit(self._fill, following[1], following[0], spare))
        return buffer

    def _following(self) -> tuple[tuple[int, int], Int64[np.ndarray, " unit"]]:
        if self._window + 1 < len(self._windows):
            return (self.epoch, self._window + 1), self._windows[self._window + 1]
        return (self.epoch + 1, 0), self._plan_epoch(self.epoch + 1)[0]

    @torch.no_grad()
    def _fill(self, units: Int64[np.ndarray, " unit"], due: tuple[int, int], rows: Tensor | None) -> _Buffer:
        """Read units into a buffer and centre the rows of each modality."""
        if rows is None:
            rows = torch.empty(self._capacity + int(self._sizes.max()), self.d_in, device=self._device)
        used = 0
        places: dict[Modality, list[Tensor]] = {m: [] for m in self._source.modalities}
        for chunk in self._source.read(units):
            for modality, found in chunk.items():
                here = rows[used : used + len(found)]
                here.copy_(found)
                if self._shift is not None:
                    here -= self._shift[modality]
                places[modality].append(torch.arange(used, used + len(found)))
                used += len(found)
        together = None
        if self.paired:
            together = torch.stack([torch.cat(p) for p in places.values()], dim=1).to(self._device)
        return _Buffer(rows, together, self._order(used if together is None else len(together), due))

    def _order(self, count: int, due: tuple[int, int] | None = None) -> Int64[Tensor, " draw"]:
        epoch, window = due or (self.epoch, self._window)
        return torch.randperm(count, generator=_generator(self._seed, epoch, window + 1)).to(self._device)

    def _plan_epoch(self, epoch: int) -> list[Int64[np.ndarray, " unit"]]:
        """Return the units of each window of an epoch."""
        if int(self._sizes.sum()) <= self._capacity:
            return [np.arange(len(self._sizes))]
        order = torch.randperm(len(self._sizes), generator=_generator(self._seed, epoch, 0)).numpy()
        filled = np.cumsum(self._sizes[order])
        cuts = np.searchsorted(filled, np.arange(1, -(-int(filled[-1]) // self._capacity)) * self._capacity)
        return [w for w in np.split(order, cuts) if len(w)]

    def _wait_for_fill(self) -> None:
        if self._coming is not None:
            self._coming[1].exception()
            self._coming = None

    def _drop(self) -> None:
        self._wait_for_fill()
        self._buffer = None

    def _check(self) -> None:
        if self.batch_size < 1 or self.batch_size % self._together:
            raise InputError(
                expected="an even batch size for paired batches" if self.paired else "a batch size of 1 or more",
                found=str(self.batch_size),
                fix="pass an even batch_size" if self.paired else "pass a batch_size of at least 1",
            )
        if not int(self._sizes.sum()):
            raise InputError(
                expected="at least one row", found="none", fix="check the function keep, which keeps no pair"
            )


def _generator(seed: int, epoch: int, window: int) -> torch.Generator:
    """Return the random generator of a window of an epoch."""
    mixed = np.random.SeedSequence([seed & 0xFFFFFFFF, epoch, window]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(mixed >> np.uint64(1)))
