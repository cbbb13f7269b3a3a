"""What is kept of a stream to compare top samples with random ones: a few embeddings, however many the pairs."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt64
from torch import Tensor

from cliplens.keys import hashed, pair_keys
from cliplens.records import SparseCodes
from cliplens.sites import Modality
from cliplens.tally import TopSamples

POOL = 1024
_SEED = 20
_SLACK = 8192


class Pool:
    """A uniform draw of all samples: those with the smallest hashed ids, in that order. Mergeable, of constant size."""

    def __init__(self, size: int = POOL) -> None:
        self.size = size
        self.rank: UInt64[np.ndarray, " kept"] = np.zeros(0, np.uint64)
        self.rows: Float[Tensor, "kept d"] = torch.zeros(0, 0)

    def update(self, keys: UInt64[np.ndarray, " row"], rows: Float[Tensor, "row d"]) -> None:
        """Take in samples with their keys."""
        rank = hashed(keys, _SEED)
        if len(self.rank) == self.size:
            nearer = rank < self.rank[-1]
            rank, rows = rank[nearer], rows[torch.as_tensor(nearer)]
        self._take(rank, rows)

    def merge(self, other: "Pool") -> None:
        """Take in another's sample."""
        self._take(other.rank, other.rows)

    def _take(self, rank: UInt64[np.ndarray, " row"], rows: Float[Tensor, "row d"]) -> None:
        if len(rank):
            every = np.concatenate([self.rank, rank])
            kept = np.argsort(every, kind="stable")[: self.size]
            held = torch.cat([self.rows.to(rows), rows]) if len(self.rank) else rows
            self.rank, self.rows = every[kept], held[torch.as_tensor(kept)].clone()


class TopEmbeddings:
    """The top samples of each latent in one modality with their embeddings, and a pool of random ones beside them."""

    def __init__(self, modality: Modality, top: int) -> None:
        self.samples = TopSamples(modality, top)
        self.pool = Pool()
        self._rows: dict[str, Tensor] = {}
        self._settled = 0

    def update(self, ids: Sequence[str], codes: SparseCodes, embeddings: Float[Tensor, "row d"]) -> None:
        """Take in codes and unit-norm embeddings of the pairs `ids`."""
        self.pool.update(pair_keys(ids), embeddings)
        self.samples.add(ids, codes)
        fires = torch.unique(codes.rows).tolist()
        self._rows |= {ids[row]: embeddings[row].clone() for row in fires}
        if len(self._rows) > 2 * self._settled + _SLACK:
            self._settle()

    def merge(self, other: "TopEmbeddings") -> None:
        """Take in what another instance has seen."""
        self.pool.merge(other.pool)
        self.samples.merge(other.samples)
        self._rows |= other._rows
        self._settle()

    def state(self) -> dict[str, Tensor]:
        """All that is kept, as tensors."""
        self._settle()
        rows = self.rows()
        top = {f"top.{name}": value for name, value in self.samples.state().items()}
        rank = torch.as_tensor(self.pool.rank.view(np.int64).copy())
        return {**top, "rows": rows, "pool.rank": rank, "pool.rows": self.pool.rows.clone()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what `state` gave."""
        self.samples.load_state({k.removeprefix("top."): v for k, v in state.items() if k.startswith("top.")})
        self._rows = dict(zip(self.samples.ids, state["rows"].clone(), strict=True))
        self.pool.rank = state["pool.rank"].cpu().numpy().view(np.uint64).copy()
        self.pool.rows = state["pool.rows"].clone()
        self._settle()

    def rows(self) -> Float[Tensor, "sample d"]:
        """The embeddings of `samples.ids`, in that order."""
        return torch.stack([self._rows[i] for i in self.samples.ids]) if self.samples.ids else self.pool.rows[:0]

    def _settle(self) -> None:
        self._rows = {i: self._rows[i] for i in self.samples.ids}
        self._settled = len(self._rows)
