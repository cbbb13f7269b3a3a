"""Training batches read from a model, without a cache."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from cliplens.deprecation import renamed_keywords
from cliplens.errors import InputError
from cliplens.hooked import HookedCLIP
from cliplens.pairs import Pairs, Quarantine
from cliplens.records import PairedActs, Provenance
from cliplens.sites import MODALITIES, MODALITY_OF, Modality, Site
from cliplens.store.provider import BUFFER_BYTES, Provider
from cliplens.store.sources import Chunk, RowSource, by_modality, check_same_width, means_of
from cliplens.stream import SiteReader, decoded_batches, finite, stream


@renamed_keywords(read_size="forward_batch")
def provider_of(
    clip: HookedCLIP,
    pairs: Pairs,
    sites: Sequence[Site | str],
    *,
    token: str = "auto",
    centre: bool = True,
    batch_size: int = 4096,
    seed: int = 0,
    paired: bool = False,
    buffer_rows: int | None = None,
    forward_batch: int = 64,
    workers: int = 0,
    quarantine: Quarantine | None = None,
) -> Provider:
    """Return a provider of rows that the model computes.

    If all rows fit into the buffer, the model reads them once; otherwise in every epoch. A cache (`harvest`) is faster
    then.

    Args:
        clip: the model.
        pairs: images and captions.
        sites: one site, or one of each tower, as `Site` or by name.
        token: see `cliplens.stream.SiteReader`.
        centre: subtract the mean of each modality.
        batch_size: rows per training batch.
        seed: seed of the order.
        paired: draw whole pairs; each batch holds images first, then captions.
        buffer_rows: number of rows shuffled at a time; None takes as many as fit into 1 GiB.
        forward_batch: pairs per forward pass.
        workers: processes that decode images; 0 decodes in this process.
        quarantine: collects bad pairs; None allows 1 % of them.

    Raises:
        MismatchError: the sites differ in width.
        PairsError: too many bad pairs.
    """
    reader = SiteReader(clip, sites, token)
    site_of = by_modality(reader.sites)
    check_same_width(reader.widths)
    provenance = Provenance(
        model=clip.identity,
        sites=tuple(str(s) for s in site_of.values()),
        d_in=next(iter(reader.widths.values())),
        token=token,
        centred=centre,
        pairs_sha256=pairs.sha256,
    )
    held = Quarantine() if quarantine is None else quarantine
    per_pair = _rows_per_pair(reader, pairs)
    capacity = buffer_rows or BUFFER_BYTES // (4 * provenance.d_in)
    if len(pairs) * per_pair <= capacity and (token not in ("all", "patches") or len(site_of) == 1):
        acts = _read_all(clip, pairs, list(site_of.values()), token, forward_batch, held, workers)
        return Provider.from_acts(
            acts, centre=centre, batch_size=batch_size, seed=seed, paired=paired, provenance=provenance
        )
    source = LiveRows(reader, pairs, forward_batch, per_pair, workers)
    return Provider(
        source,
        batch_size=batch_size,
        means=means_of(source) if centre else None,
        provenance=provenance,
        seed=seed,
        paired=paired,
        buffer_rows=buffer_rows,
        prefetch=False,
    )


def _read_all(
    clip: HookedCLIP,
    pairs: Pairs,
    sites: Sequence[Site],
    token: str,
    forward_batch: int,
    held: Quarantine,
    workers: int,
) -> PairedActs:
    parts = list(stream(clip, pairs, sites, token=token, forward_batch=forward_batch, quarantine=held, workers=workers))
    rows: dict[Modality, list[Tensor]] = {m: [r for p in parts if (r := p.of(m)) is not None] for m in MODALITIES}
    whole = {m: torch.cat(found).cpu() if found else None for m, found in rows.items()}
    return PairedActs(tuple(i for p in parts for i in p.ids), whole["image"], whole["text"])


def _rows_per_pair(reader: SiteReader, pairs: Pairs) -> int:
    """Return the largest number of rows of a pair over all sites, from the first pair that can be read."""
    decoder = reader.decoder(pairs)
    for place in range(len(decoder)):
        decoded = decoder[np.array([place], dtype=np.int64)]
        if decoded.ids:
            return sum(found.acts.shape[1] for found in reader.read(decoded).sites.values())
    raise InputError(
        expected="at least one good pair", found=f"none in {pairs.name!r}", fix="check the paths of the images"
    )


class LiveRows(RowSource):
    """Rows computed by the model on demand. A unit is a pair; a bad pair has no rows."""

    def __init__(self, reader: SiteReader, pairs: Pairs, forward_batch: int, rows_per_pair: int, workers: int) -> None:
        self._reader = reader
        self._decoder = reader.decoder(pairs)
        self._forward_batch, self._per_pair, self._workers = forward_batch, rows_per_pair, workers
        self.modalities = tuple(MODALITY_OF[s.side] for s in reader.sites)
        self.d_in = next(iter(reader.widths.values()))

    @property
    def sizes(self) -> Int64[np.ndarray, " unit"]:
        return np.full(len(self._decoder), self._per_pair)

    def read(self, units: Int64[np.ndarray, " unit"]) -> Iterator[Chunk]:
        batches = [units[i : i + self._forward_batch] for i in range(0, len(units), self._forward_batch)]
        for number, decoded in enumerate(decoded_batches(self._decoder, batches, self._workers)):
            if not decoded.ids:
                continue
            batch = self._reader.read(decoded)
            finite(batch, number)
            yield {site.modality: found.rows() for site, found in batch.sites.items()}
