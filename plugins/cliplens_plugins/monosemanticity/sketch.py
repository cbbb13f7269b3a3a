"""What is kept of a stream to compare top samples with random ones: a few embeddings, however many the pairs."""

from collections.abc import Mapping
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt64
from torch import Tensor

from cliplens.keys import hashed
from cliplens.records import PairedCodes
from cliplens.sites import Modality
from cliplens.tally import TopSamples

POOL = 1024
FULL = 1024
"""Latents whose longest lists are kept: enough for the medians that show how scores depend on the length."""
_SEED = 20


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


def most_of(d_sae: int, top: int, usual: int) -> Int64[np.ndarray, " d_sae"]:
    """How many samples to keep of each latent: `top` of the first `FULL` by hashed number, `usual` of the others."""
    kept = np.full(d_sae, min(usual, top))
    kept[drawn_latents(d_sae)] = top
    return kept


def drawn_latents(d_sae: int) -> Int64[np.ndarray, " drawn"]:
    """A uniform draw of `FULL` latents, or all of them."""
    return np.sort(np.argsort(hashed(np.arange(d_sae, dtype=np.uint64), _SEED), kind="stable")[:FULL])


class TopEmbeddings:
    """The top samples of each latent in one modality with their embeddings, and a pool of random ones."""

    def __init__(self, modality: Modality, top: int, usual: int) -> None:
        self.samples = TopSamples(modality, top, partial(most_of, top=top, usual=usual))
        self.pool = Pool()

    def update(self, codes: PairedCodes, embeddings: Float[Tensor, "row d"]) -> None:
        """Take in codes and unit-norm embeddings of the same pairs."""
        own = codes.of(self.samples.modality)
        assert own is not None
        self.pool.update(codes.keys, embeddings)
        self.samples.add(codes.ids, own, embeddings)

    def merge(self, other: "TopEmbeddings") -> None:
        """Take in what another instance has seen."""
        self.pool.merge(other.pool)
        self.samples.merge(other.samples)

    def state(self) -> dict[str, Tensor]:
        """All that is kept, as tensors."""
        top = {f"top.{name}": value for name, value in self.samples.state().items()}
        rank = torch.as_tensor(self.pool.rank.view(np.int64).copy())
        return {**top, "pool.rank": rank, "pool.rows": self.pool.rows.clone()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what `state` gave."""
        self.samples.load_state({k.removeprefix("top."): v for k, v in state.items() if k.startswith("top.")})
        self.pool.rank = state["pool.rank"].cpu().numpy().view(np.uint64).copy()
        self.pool.rows = state["pool.rows"].clone()

    def rows(self) -> Float[Tensor, "sample d"]:
        """The embeddings of `samples.ids`, in that order."""
        payload = self.samples.payload
        return self.pool.rows[:0] if payload is None else payload
