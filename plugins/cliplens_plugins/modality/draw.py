"""Keep a bounded, uniform draw of pairs with their codes, for statistics over pairs of latents.

Pairs are kept in the order of their hashed ids while their firings fit into a budget. The draw is therefore uniform and
does not depend on the order of batches or merges. It holds all pairs if they fit.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int32, UInt64
from scipy.sparse import csr_array
from torch import Tensor

from cliplens.keys import hashed
from cliplens.records import PairedActs, PairedCodes, SparseCodes
from cliplens.sites import MODALITIES, Modality

FIRINGS = 1 << 22
"""Default budget in firings: 65,536 pairs with 32 firings per modality; about 50 MB."""
_SEED = 83
_NO_LIMIT = np.uint64(2**64 - 1)


@dataclass
class _Side:
    """Firings of one modality, each with the index of its pair in the draw, and a payload per pair."""

    rows: Int32[np.ndarray, " firing"]
    latents: Int32[np.ndarray, " firing"]
    values: Float[np.ndarray, " firing"]
    payload: Float[np.ndarray, "row d"]

    def of_kept(self, kept: Bool[np.ndarray, " row"]) -> "_Side":
        """Return the firings and payloads of the kept pairs, with new indices."""
        mine = kept[self.rows]
        number = np.cumsum(kept, dtype=np.int32) - 1
        payload = self.payload[kept] if len(self.payload) else self.payload
        return _Side(number[self.rows[mine]], self.latents[mine], self.values[mine], payload)


class PairsDraw:
    """The codes of the pairs with the smallest hashed ids, as many as fit into a budget. Mergeable.

    Args:
        firings: budget in firings of both modalities together.
        pairs: maximum number of pairs, as a second limit.
    """

    def __init__(self, firings: int = FIRINGS, pairs: int | None = None) -> None:
        self._firings, self._pairs = firings, pairs
        self._limit = _NO_LIMIT
        """Pairs with this hash or a larger one are not kept, because such a pair did not fit before."""
        self._rank = np.zeros(0, np.uint64)
        self._sides: dict[Modality, _Side] = {m: _none() for m in MODALITIES}
        self._buffered: list[tuple[UInt64[np.ndarray, " row"], dict[Modality, _Side]]] = []
        self._n_buffered = 0
        self.d_sae = 0

    def update(self, codes: PairedCodes, payload: PairedActs | None = None) -> None:
        """Add a batch of paired codes, with an optional payload per row."""
        self.d_sae = codes.d_sae
        rank = hashed(codes.keys, _SEED)
        near = rank < self._limit
        if near.any():
            sides = {m: _side(codes.of(m), None if payload is None else payload.of(m)) for m in MODALITIES}
            self._buffer(rank[near], {m: side.of_kept(near) for m, side in sides.items()})

    def merge(self, other: "PairsDraw") -> None:
        """Add the pairs of another draw."""
        other._compact()
        self.d_sae = self.d_sae or other.d_sae
        self._limit = min(self._limit, other._limit)
        self._buffer(other._rank, other._sides)
        self._compact()

    def state(self) -> dict[str, Tensor]:
        """Return the kept pairs as tensors."""
        self._compact()
        held = {f"{m}.{k}": torch.tensor(v) for m, side in self._sides.items() for k, v in vars(side).items()}
        numbers = np.concatenate([[self._limit], self._rank]).astype(np.uint64)
        return {**held, "rank": torch.as_tensor(numbers.view(np.int64)), "d_sae": torch.tensor(self.d_sae)}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue from tensors that `state` returned."""
        fresh = PairsDraw(self._firings, self._pairs)
        numbers = state["rank"].cpu().numpy().view(np.uint64)
        fresh.d_sae, fresh._limit, fresh._rank = int(state["d_sae"]), numbers[0], numbers[1:].copy()
        for m in MODALITIES:
            fresh._sides[m] = _Side(*(state[f"{m}.{k}"].cpu().numpy() for k in _PARTS))
        self.__dict__.update(fresh.__dict__)

    @property
    def n_pairs(self) -> int:
        """Number of pairs in the draw."""
        self._compact()
        return len(self._rank)

    @property
    def ranks(self) -> UInt64[np.ndarray, " pair"]:
        """Hash of the picture of each pair in the draw, in the order of `matrix`."""
        self._compact()
        return np.sort(self._rank)

    def matrix(self, modality: Modality, chosen: Bool[np.ndarray, " d_sae"]) -> csr_array:
        """Return the codes of the chosen latents, [pair, d_sae] in float64; pairs in the order of their hashes."""
        self._compact()
        side = self._sides[modality]
        mine = chosen[side.latents]
        place = (side.rows[mine], side.latents[mine])
        held = csr_array((side.values[mine].astype(np.float64), place), shape=(len(self._rank), self.d_sae))
        return held[np.argsort(self._rank, kind="stable")]

    def payload(self, modality: Modality) -> Float[np.ndarray, "pair d"]:
        """Return the payload of each pair in the draw, in the order of `matrix`."""
        self._compact()
        return self._sides[modality].payload[np.argsort(self._rank, kind="stable")]

    def _buffer(self, rank: UInt64[np.ndarray, " row"], sides: dict[Modality, _Side]) -> None:
        self._buffered.append((rank, sides))
        self._n_buffered += sum(len(side.rows) for side in sides.values())
        if self._n_buffered > self._firings // 4:
            self._compact()

    def _compact(self) -> None:
        if not self._buffered:
            return
        parts = [(self._rank, self._sides), *self._buffered]
        self._buffered, self._n_buffered = [], 0
        starts = np.cumsum([0, *(len(rank) for rank, _ in parts[:-1])]).tolist()
        rank = np.concatenate([rank for rank, _ in parts])
        sides = {
            m: _Side(
                np.concatenate([s[m].rows + np.int32(a) for a, (_, s) in zip(starts, parts, strict=True)]),
                np.concatenate([s[m].latents for _, s in parts]),
                np.concatenate([s[m].values for _, s in parts]),
                _stacked([s[m].payload for _, s in parts]),
            )
            for m in MODALITIES
        }
        size = np.asarray(sum(np.bincount(side.rows, minlength=len(rank)) for side in sides.values()))
        order = np.argsort(rank, kind="stable")
        beyond = np.cumsum(size[order]) > self._firings
        beyond[self._pairs :] |= self._pairs is not None
        over = order[beyond]
        if len(over):
            self._limit = min(self._limit, rank[over[0]])
        kept = rank < self._limit
        self._rank, self._sides = rank[kept], {m: side.of_kept(kept) for m, side in sides.items()}


_PARTS = ("rows", "latents", "values", "payload")


def _side(codes: SparseCodes | None, payload: Tensor | None) -> _Side:
    if codes is None:
        return _none()
    rows, latents = (x.cpu().numpy().astype(np.int32) for x in (codes.rows, codes.latents))
    held = np.zeros((0, 0), np.float32) if payload is None else payload.detach().cpu().numpy()
    return _Side(rows, latents, codes.values.detach().cpu().numpy(), held)


def _none() -> _Side:
    nothing = np.zeros(0, np.int32)
    return _Side(nothing, nothing, np.zeros(0, np.float32), np.zeros((0, 0), np.float32))


def _stacked(parts: list[np.ndarray]) -> np.ndarray:
    """Concatenate along rows; empty arrays are skipped, because their width is unknown."""
    known = [part for part in parts if len(part)]
    return np.concatenate(known) if known else parts[0]
