"""Iterate over the activations of pairs, batch by batch."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Int64
from torch.utils.data import DataLoader

from cliplens.deprecation import renamed_keywords
from cliplens.errors import InputError
from cliplens.hooked import HookedCLIP
from cliplens.pairs import Decoded, Decoder, Pairs, Quarantine
from cliplens.progress import Bar
from cliplens.records import PairedActs
from cliplens.sites import SIDES, Side, Site, as_sites
from cliplens.stream.acts import ReadBatch, finite
from cliplens.stream.reader import SiteReader

Indices = Int64[np.ndarray, " _"]
"""Indices of pairs. The axis has no name, because batches differ in length."""


def decoded_batches(decoder: Decoder, batches: Iterable[Indices], workers: int = 0) -> Iterator[Decoded]:
    """Decode batches in order, in this process (workers=0) or ahead of time in worker processes."""
    if workers <= 0:
        yield from (decoder[indices] for indices in batches)
        return
    yield from DataLoader(
        decoder,  # type: ignore[arg-type]
        batch_size=None,
        sampler=batches,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
    )


class Stream(Iterator[PairedActs]):
    """Iterate over the activations of pairs, batch by batch.

    `truncated` counts the captions cut to the model's context so far. `quarantine` holds the pairs left out so far.
    """

    def __init__(
        self,
        clip: HookedCLIP,
        pairs: Pairs,
        sites: Sequence[Site | str],
        *,
        token: str,
        forward_batch: int,
        quarantine: Quarantine,
        workers: int,
    ) -> None:
        self.pairs = pairs
        self.quarantine = quarantine
        self.truncated = 0
        self._at = _one_per_side(as_sites(sites))
        self._reader = SiteReader(clip, sites, token)
        if token in ("all", "patches") and len(self._at) > 1:
            raise InputError(
                expected=f"sites of one tower for token={token!r}, which gives many rows per pair",
                found="sites of both towers",
                fix="read the towers one at a time, or pass token='auto' or 'mean'",
            )
        batches = np.split(np.arange(len(pairs)), range(forward_batch, len(pairs), forward_batch))
        decoded = decoded_batches(self._reader.decoder(pairs), batches, workers)
        self._batches = self._read(decoded)

    def __next__(self) -> PairedActs:
        return next(self._batches)

    def _read(self, batches: Iterable[Decoded]) -> Iterator[PairedActs]:
        with Bar(total=len(self.pairs), desc="reading activations", unit="pair") as bar:
            for number, decoded in enumerate(batches):
                for pair, reason in decoded.bad:
                    self.quarantine.add(pair, reason)
                if decoded.bad:
                    self.quarantine.check(len(self.pairs))
                bar.update(len(decoded.ids) + len(decoded.bad))
                if not decoded.ids:
                    continue
                batch = self._reader.read(decoded)
                finite(batch, number)
                self.truncated += batch.truncated
                yield self._paired(batch)

    def _paired(self, batch: ReadBatch) -> PairedActs:
        rows = {side: batch.sites[site].rows() for side, site in self._at.items()}
        ids = batch.decoded.ids
        site = next(iter(self._at.values()))
        if not batch.sites[site].one_each:
            lengths = batch.sites[site].lengths.tolist()
            ids = tuple(i for i, n in zip(ids, lengths, strict=True) for _ in range(n))
        return PairedActs(ids, rows.get("vision"), rows.get("text"))


@renamed_keywords(batch_size="forward_batch")
def stream(
    clip: HookedCLIP,
    pairs: Pairs,
    sites: Sequence[Site | str],
    *,
    token: str = "auto",
    forward_batch: int = 64,
    quarantine: Quarantine | None = None,
    workers: int = 0,
) -> Stream:
    """Return an iterator over the activations of pairs at one site per tower.

    Batches are `PairedActs` in the order of the pairs, float32, on the model's device.

    Args:
        clip: the model.
        pairs: images and captions.
        sites: one site, or one of each tower, as `Site` or by name.
        token: see `SiteReader`. With "all" and "patches" a pair has many rows, which repeat its id.
        forward_batch: pairs per forward pass; bad pairs are dropped from it, image and caption together.
        quarantine: collects bad pairs; None keeps them in memory and allows 1 % of them.
        workers: processes that decode images; 0 decodes in this process.

    Raises:
        NonFiniteError: nan or inf in the activations; the message names batch, site and first pair.
        PairsError: too many bad pairs.
        UnknownNameError: no hook has that name.
    """
    held = Quarantine() if quarantine is None else quarantine
    return Stream(clip, pairs, sites, token=token, forward_batch=forward_batch, quarantine=held, workers=workers)


def _one_per_side(sites: Sequence[Site]) -> dict[Side, Site]:
    at: dict[Side, Site] = {}
    for side in SIDES:
        here = [s for s in sites if s.side == side]
        if len(here) > 1:
            raise InputError(
                expected="at most one site per tower",
                found=", ".join(map(str, here)),
                fix="read them one at a time, or harvest them together into a cache",
            )
        if here:
            at[side] = here[0]
    return at
