"""Keep a bounded number of embeddings of a stream: those of top samples and those of random samples."""

from collections.abc import Mapping
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt64
from torch import Tensor

from cliplens.keys import hashed, text_keys
from cliplens.records import PairedCodes
from cliplens.sites import Modality
from cliplens.tally import Mergeable, TopSamples, joined_states, load_joined

POOL = 1024
FULL = 1024
"""Number of latents with long lists of top samples, for the medians in the table of sensitivity to m."""
_SEED = 20


class Pool:
    """A uniform draw of distinct samples: those with the smallest hashed ids. Mergeable and of bounded size.

    Rows with the same image or the same text count as one sample, represented by the row with the smallest hashed id.
    """

    def __init__(self, size: int = POOL) -> None:
        self.size = size
        self.rank: UInt64[np.ndarray, " kept"] = np.zeros(0, np.uint64)
        self.keys: UInt64[np.ndarray, " kept"] = np.zeros(0, np.uint64)
        self.rows: Float[Tensor, "kept d"] = torch.zeros(0, 0)

    def update(
        self, ids: UInt64[np.ndarray, " row"], keys: UInt64[np.ndarray, " row"], rows: Float[Tensor, "row d"]
    ) -> None:
        """Add samples with the hashes of their ids and of their images or texts."""
        rank = hashed(ids, _SEED)
        if len(self.rank) == self.size:
            nearer = rank < self.rank[-1]
            rank, keys, rows = rank[nearer], keys[nearer], rows[torch.as_tensor(nearer)]
        self._take(rank, keys, rows)

    def merge(self, other: "Pool") -> None:
        """Add the samples of another instance."""
        self._take(other.rank, other.keys, other.rows)

    def state(self) -> dict[str, Tensor]:
        """Return all that is kept, as tensors."""
        numbers = {"rank": self.rank, "keys": self.keys}
        return {**{k: torch.as_tensor(v.view(np.int64).copy()) for k, v in numbers.items()}, "rows": self.rows.clone()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a state that `state` gave."""
        self.rank, self.keys = (state[name].cpu().numpy().view(np.uint64).copy() for name in ("rank", "keys"))
        self.rows = state["rows"].clone()

    def _take(
        self, rank: UInt64[np.ndarray, " row"], keys: UInt64[np.ndarray, " row"], rows: Float[Tensor, "row d"]
    ) -> None:
        if not len(rank):
            return
        ranks, every = np.concatenate([self.rank, rank]), np.concatenate([self.keys, keys])
        order = np.argsort(ranks, kind="stable")
        _, first = np.unique(every[order], return_index=True)
        kept = order[np.sort(first)][: self.size]
        held = torch.cat([self.rows.to(rows), rows]) if len(self.rank) else rows
        self.rank, self.keys, self.rows = ranks[kept], every[kept], held[torch.as_tensor(kept)].clone()


def most_of(d_sae: int, top: int, usual: int) -> Int64[np.ndarray, " d_sae"]:
    """Return the number of samples to keep of each latent: `top` for `drawn_latents`, `usual` for the others."""
    kept = np.full(d_sae, min(usual, top))
    kept[drawn_latents(d_sae)] = top
    return kept


def drawn_latents(d_sae: int) -> Int64[np.ndarray, " drawn"]:
    """Return the indices of `FULL` latents drawn uniformly, or of all latents if there are fewer."""
    return np.sort(np.argsort(hashed(np.arange(d_sae, dtype=np.uint64), _SEED))[:FULL])


class TopEmbeddings:
    """The embeddings of each latent's top samples in one modality, and a pool of random ones."""

    def __init__(self, modality: Modality, top: int, usual: int) -> None:
        self.samples = TopSamples(modality, top, partial(most_of, top=top, usual=usual))
        self.pool = Pool()

    def update(self, codes: PairedCodes, embeddings: Float[Tensor, "row d"]) -> None:
        """Add codes and unit-norm embeddings of the same pairs."""
        own = codes.of(self.samples.modality)
        assert own is not None
        units = codes.known_units
        keys = units.images if self.samples.modality == "image" else units.captions
        ids = units.images if self.samples.modality == "image" else text_keys(codes.ids)
        self.pool.update(ids, keys, embeddings)
        self.samples.add(codes.ids, own, embeddings, keys)

    def merge(self, other: "TopEmbeddings") -> None:
        """Add the samples of another instance."""
        self.pool.merge(other.pool)
        self.samples.merge(other.samples)

    def state(self) -> dict[str, Tensor]:
        """Return all that is kept, as tensors."""
        return joined_states(self._parts())

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a state that `state` gave."""
        load_joined(self._parts(), state)

    def _parts(self) -> dict[str, Mergeable]:
        return {"top": self.samples, "pool": self.pool}

    def rows(self) -> tuple[Float[Tensor, "row d"], Int64[np.ndarray, " sample"]]:
        """Embeddings, and the row of each of the samples `samples.ids`."""
        return self.samples.payload_rows()
