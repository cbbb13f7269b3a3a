"""The strongest samples of each latent, kept in bounded memory."""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Int64, UInt64
from torch import Tensor

from cliplens.errors import InputError
from cliplens.records import Batch, Exemplars, Pair, SparseCodes, Units
from cliplens.sites import Modality
from cliplens.tally.kept_rows import KeptRows

_BLOCK = 8192
"""Latents whose firings are sorted at a time."""


def _strongest_row_each(
    ids: Sequence[str], sample: np.ndarray, latents: np.ndarray, values: np.ndarray
) -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray]:
    """Keep only the strongest firing of a latent on the rows of one pair."""
    index: dict[str, int] = {}
    pair = np.array([index.setdefault(i, len(index)) for i in ids])[sample]
    order = np.lexsort((-values, latents, pair))
    _, first = np.unique(np.stack([pair, latents])[:, order], axis=1, return_index=True)
    kept = order[first]
    return list(index), pair[kept], latents[kept], values[kept]


class TopSamples:
    """The strongest distinct samples of each latent in one modality, ties broken by pair id. Mergeable, bounded.

    A sample is a picture, or a caption text: of the pairs that share it, the one with the strongest activation stands
    for it. So a picture with five captions is listed once.

    Firings that can no longer be among the strongest are dropped at once. The others wait in a buffer, which is
    compacted whenever it has grown as large as the table itself. A firing takes 12 bytes; 16 where codes are float64.

    Args:
        modality: the modality whose codes are looked at.
        top: the most samples to keep of a latent.
        most: maps the number of latents to the most samples to keep of each; None keeps `top` of every latent.
    """

    def __init__(
        self, modality: Modality, top: int = 20, most: Callable[[int], Int64[np.ndarray, " d_sae"]] | None = None
    ) -> None:
        self.modality = modality
        self.top = top
        self.d_sae = 0
        self._most_of = most
        self._most = np.zeros(0, np.int64)
        self._ids: list[str] = []
        self._keys = np.zeros(0, np.uint64)
        """The picture, or the caption text, of each id."""
        self._latents = np.zeros(0, np.int32)
        self._values = np.zeros(0, np.float32)
        self._sample = np.zeros(0, np.int32)
        self._floor = np.zeros(0)
        """The weakest value each latent keeps; 0 while it keeps fewer than it may."""
        self._payload = KeptRows()
        self._at = np.zeros(0, np.int64)
        """The row of each id in the payload."""
        self._buffered: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._n_buffered = 0

    def update(self, batch: Batch) -> None:
        """Add one batch."""
        codes = batch.codes.of(self.modality)
        if codes is not None:
            units = batch.codes.known_units
            self.add(batch.ids, codes, keys=units.images if self.modality == "image" else units.captions)

    def add(
        self,
        ids: Sequence[str],
        codes: SparseCodes,
        payload: Float[Tensor, "row d"] | None = None,
        keys: UInt64[np.ndarray, " row"] | None = None,
    ) -> None:
        """Add codes of the pairs `ids`, and a payload per row that is kept with its sample.

        A pair with many rows, one per patch or token, counts by its strongest row; its rows share one payload.

        Args:
            ids: the pair of each row.
            codes: the codes of the rows.
            payload: a vector per row.
            keys: equal for rows that show one picture, or say one text; None: as the ids tell (`Units.from_ids`).
        """
        self._sized(codes.d_sae)
        latents, values = codes.latents.cpu().numpy().astype(np.int32), _exact(codes.values)
        kept = (values > 0) & (values >= self._floor[latents])
        latents, values, of_firing = latents[kept], values[kept], codes.rows.cpu().numpy()[kept]
        used = np.zeros(len(ids), dtype=bool)
        used[of_firing] = True
        rows, sample = np.flatnonzero(used), (np.cumsum(used) - 1)[of_firing]
        named = [ids[r] for r in rows.tolist()]
        row_of = dict(zip(named, rows.tolist(), strict=True))
        if len(row_of) < len(named):
            named, sample, latents, values = _strongest_row_each(named, sample, latents, values)
        kept_rows = np.array([row_of[name] for name in named], dtype=np.int64)
        some = None if payload is None else payload[torch.as_tensor(kept_rows)]
        if keys is None:
            units = Units.from_ids(named)
            of_named = units.images if self.modality == "image" else units.captions
        else:
            of_named = keys[kept_rows]
        self._buffer(named, of_named, latents, values, sample, some)

    def merge(self, other: "TopSamples") -> None:
        """Add the samples of another instance."""
        other._compact()
        if other.d_sae:
            self._sized(other.d_sae)
            self._buffer(other._ids, other._keys, other._latents, other._values, other._sample, other.payload)

    def state(self) -> dict[str, Tensor]:
        """Return the state as tensors. Ids are stored as UTF-8 bytes, with the position of the end of each."""
        self._compact()
        encoded = [i.encode() for i in self._ids]
        held = {
            "d_sae": torch.tensor(self.d_sae),
            "ids": torch.frombuffer(bytearray(b"".join(encoded) or b" "), dtype=torch.uint8).clone(),
            "ends": torch.tensor(np.cumsum([len(e) for e in encoded], dtype=np.int64)),
            "keys": torch.as_tensor(self._keys.view(np.int64).copy()),
            "latents": torch.tensor(self._latents),
            "values": torch.tensor(self._values),
            "sample": torch.tensor(self._sample),
        }
        payload = self.payload
        return held if payload is None else {**held, "payload": payload}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Replace the state by one that `state` returned."""
        fresh = TopSamples(self.modality, self.top, self._most_of)
        if int(state["d_sae"]):
            raw, ends = state["ids"].cpu().numpy().tobytes(), state["ends"].tolist()
            ids = [raw[a:b].decode() for a, b in pairwise([0, *ends])]
            fresh._sized(int(state["d_sae"]))
            latents, values, sample = (state[name].cpu().numpy() for name in ("latents", "values", "sample"))
            keys = state["keys"].cpu().numpy().view(np.uint64)
            fresh._buffer(ids, keys, latents, values, sample, state["payload"].clone() if "payload" in state else None)
        self.__dict__.update(fresh.__dict__)

    @property
    def ids(self) -> tuple[str, ...]:
        """Ids of the pairs among the top samples of any latent, sorted."""
        self._compact()
        return tuple(self._ids)

    @property
    def payload(self) -> Float[Tensor, "sample d"] | None:
        """The payloads of the samples `ids`, in that order; None where none was given. This is a copy."""
        rows, at = self.payload_rows()
        return rows[torch.from_numpy(at)] if len(rows) else None

    def payload_rows(self) -> tuple[Float[Tensor, "row d"], Int64[np.ndarray, " sample"]]:
        """Return the payloads in the order of their arrival, and the row of each of `ids`. Nothing is copied."""
        self._compact()
        return self._payload.joined(), self._at

    def table(self) -> Int64[np.ndarray, "d_sae top"]:
        """Return the indices into `ids` of the samples of each latent, strongest first; -1 where fewer fire."""
        self._compact()
        at = np.full((self.d_sae, self.top), -1, np.int64)
        at[self._latents, _rank_within(self._latents)] = self._sample
        return at

    def exemplars(self, pairs: Mapping[str, Pair]) -> Exemplars:
        """Return the samples kept, strongest first, with their pairs looked up by id."""
        at = self.table()
        values = np.zeros((self.d_sae, self.top))
        values[self._latents, _rank_within(self._latents)] = self._values
        return Exemplars(self.modality, tuple(pairs[i] for i in self._ids), at, values)

    def _sized(self, d_sae: int) -> None:
        if self.d_sae not in (0, d_sae):
            raise InputError(
                expected=f"codes of one dictionary ({self.d_sae} latents)",
                found=f"codes over {d_sae}",
                fix="keep a TopSamples per dictionary",
            )
        if not self.d_sae:
            self.d_sae, self._floor = d_sae, np.zeros(d_sae)
            self._most = self._most_of(d_sae) if self._most_of else np.full(d_sae, self.top)

    def _buffer(
        self,
        ids: Sequence[str],
        keys: np.ndarray,
        latents: np.ndarray,
        values: np.ndarray,
        sample: np.ndarray,
        payload: Tensor | None = None,
    ) -> None:
        self._buffered.append((latents.astype(np.int32), values, sample.astype(np.int32) + np.int32(len(self._ids))))
        self._ids += ids
        self._keys = np.concatenate([self._keys, keys])
        if payload is not None:
            self._at = np.concatenate([self._at, len(self._payload) + np.arange(len(ids))])
            self._payload.add(payload)
        self._n_buffered += len(latents)
        if self._n_buffered > max(int(self._most.sum()), 1 << 16):
            self._compact()

    def _compact(self) -> None:
        if not self._buffered:
            return
        parts = [(self._latents, self._values, self._sample), *self._buffered]
        self._buffered, self._n_buffered = [], 0
        latents, values, sample = (np.concatenate(column) for column in zip(*parts, strict=True))
        del parts
        names, first, index = np.unique(self._ids, return_index=True, return_inverse=True)
        sample, keys = index.astype(np.int32)[sample], self._keys[first]
        order = self._kept(latents, values, sample, keys)
        self._latents, self._values, sample = latents[order], values[order], sample[order]
        still = np.zeros(len(names), dtype=bool)
        still[sample] = True
        used, self._sample = np.flatnonzero(still), (np.cumsum(still, dtype=np.int32) - 1)[sample]
        self._ids, self._keys = names[used].tolist(), keys[used]
        if len(self._at):
            wanted = np.sort(at := self._at[first[used]])
            self._payload.keep(torch.from_numpy(wanted))
            self._at = np.searchsorted(wanted, at)
        last = np.flatnonzero(_rank_within(self._latents) == self._most[self._latents] - 1)
        self._floor[self._latents[last]] = self._values[last]

    def _kept(
        self, latents: np.ndarray, values: np.ndarray, sample: np.ndarray, keys: np.ndarray
    ) -> Int64[np.ndarray, " kept"]:
        """Return which firings are kept, by latent and strongest first. It looks at `_BLOCK` latents at a time."""
        found = [np.zeros(0, np.int64)]
        for start in range(0, self.d_sae, _BLOCK):
            here = np.flatnonzero((latents >= start) & (latents < start + _BLOCK))
            some, of_sample = latents[here] - np.int32(start), sample[here]
            order = _by_strength(some, values[here], of_sample)
            order = order[_first_of_each(some[order], keys[of_sample[order]])]
            some = some[order]
            found.append(here[order[_rank_within(some) < self._most[some + start]]])
        return np.concatenate(found)


def _exact(values: Float[Tensor, " firing"]) -> Float[np.ndarray, " firing"]:
    """Return activations as float32, or as float64 if they are."""
    values = values.detach().cpu()
    return (values if values.dtype == torch.float64 else values.float()).numpy()


def _by_strength(
    latents: Int[np.ndarray, " n"], values: Float[np.ndarray, " n"], index: Int[np.ndarray, " n"]
) -> Int64[np.ndarray, " n"]:
    """Return the order by latent, then strongest first, then index: that of `lexsort`, at a third of its cost."""
    order = np.argsort(-values)
    # numpy sorts 16-bit integers by radix sort.
    small = latents.astype(np.uint16) if len(latents) and latents.max() < 1 << 16 else latents
    order = order[np.argsort(small[order], kind="stable")]
    ahead, behind = order[:-1], order[1:]
    same = (latents[ahead] == latents[behind]) & (values[ahead] == values[behind])
    if same.any():
        tied = np.flatnonzero(np.r_[False, same] | np.r_[same, False])
        some = order[tied]
        order[tied] = some[np.lexsort((index[some], -values[some], latents[some]))]
    return order


def _first_of_each(latents: Int[np.ndarray, " n"], keys: UInt64[np.ndarray, " n"]) -> Bool[np.ndarray, " n"] | slice:
    """Return which entries are the first of their latent with that key; `latents` is sorted."""
    distinct, group = np.unique(keys, return_inverse=True)
    if len(distinct) == len(keys):
        return slice(None)
    _, first = np.unique(latents.astype(np.int64) * len(distinct) + group, return_index=True)
    kept = np.zeros(len(latents), dtype=bool)
    kept[first] = True
    return kept


def _rank_within(groups: Int[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """Count the entries of the same group before each entry; `groups` is sorted."""
    n = len(groups)
    first = np.flatnonzero(np.r_[True, groups[1:] != groups[:-1]]) if n else np.zeros(0, np.int64)
    return np.arange(n) - np.repeat(first, np.diff(np.r_[first, n]))
