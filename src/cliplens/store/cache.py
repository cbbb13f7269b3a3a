"""A cache of activations on disk, with the rows of all sites in the same order of pairs."""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Bool, Float, Int64, UInt64
from torch import Tensor

from cliplens.errors import DamagedError, InputError, unknown_name
from cliplens.keys import pair_keys
from cliplens.records import PairedActs, Provenance
from cliplens.sites import Site
from cliplens.store.arrow import ShardFile, read_table
from cliplens.store.manifest import ShardRecord, read_plan, shard_name
from cliplens.store.plan import Plan, SitePlan

Keep = Callable[[UInt64[np.ndarray, " pair"]], Bool[np.ndarray, " pair"]]


@dataclass(frozen=True)
class Block:
    """Neighbouring pairs of one shard, by their ascending positions in the shard."""

    shard: int
    kept: Int64[np.ndarray, " pair"]


class Cache:
    """The activations of pairs at several sites, in the order they were written.

    `Cache.open(folder)` opens one; `cliplens.store.harvest` makes one.
    """

    def __init__(self, folder: Path, plan: Plan, records: Sequence[ShardRecord]) -> None:
        self.folder = folder
        self.plan = plan
        self.records = tuple(records)
        self._file = lru_cache(maxsize=64)(self._open_file)
        self._lengths = lru_cache(maxsize=64)(self._read_lengths)
        self._shard_ids = lru_cache(maxsize=2)(self._read_ids)

    @classmethod
    def open(cls, folder: Path | str, *, verify: bool = False) -> "Cache":
        """Open the cache in a folder.

        Args:
            verify: compare the hashes of all files; False compares sizes only.

        Raises:
            InputError: there is no cache, or it is not finished.
            DamagedError: a shard was altered or cut since it was written.
        """
        path = Path(folder)
        found = read_plan(path)
        if found is None:
            raise InputError(
                expected="a folder with a cache",
                found=f"no manifest.json in {path}",
                fix="write a cache there with harvest, or correct the path",
            )
        plan, complete = found
        records = [r for r in (ShardRecord.load(path, n) for n in plan.names) if r is not None]
        if not complete or len(records) < plan.n_shards:
            raise InputError(
                expected=f"a finished cache in {path}",
                found=f"{len(records)} of {plan.n_shards} shards",
                fix="run the same harvest again: it continues where it stopped",
            )
        for record in records:
            damage = record.damage(path, by_hash=verify)
            if damage:
                raise DamagedError(
                    expected=f"shard {record.shard} of {path} as it was written",
                    found=damage,
                    fix="run the same harvest again: it rewrites this shard only",
                )
        return cls(path, plan, records)

    def __len__(self) -> int:
        return sum(r.rows for r in self.records)

    def __repr__(self) -> str:
        sites = ", ".join(str(s.site) for s in self.plan.sites)
        return f"Cache({self.folder}, {len(self)} pairs at {sites})"

    @property
    def sites(self) -> tuple[Site, ...]:
        """The sites that were harvested."""
        return tuple(s.site for s in self.plan.sites)

    @property
    def truncated(self) -> int:
        """Number of captions cut to the context."""
        return sum(r.truncated for r in self.records)

    @property
    def quarantined(self) -> int:
        """Number of bad pairs left out."""
        return sum(len(r.bad) for r in self.records)

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """The id of every pair in the order of the cache: strings, about a hundred bytes each."""
        return tuple(i for n in self.plan.names for i in self._pairs(n)["id"].to_pylist())

    @cached_property
    def indices(self) -> Int64[np.ndarray, " pair"]:
        """Index of each pair in the pairs that were harvested: the permutation without bad pairs."""
        return np.concatenate([self._pairs(n)["place"].to_numpy() for n in self.plan.names]).astype(np.int64)

    @cached_property
    def keys(self) -> UInt64[np.ndarray, " pair"]:
        """The 64-bit key of every pair."""
        return np.concatenate([pair_keys(self._read_ids(n)) for n in self.plan.names])

    def by_picture(self, image_ids: Sequence[str]) -> "Cache":
        """Return the same cache with keys derived from the picture of each pair, not from its id.

        Splits by key then keep all pairs of a picture together.

        Args:
            image_ids: one id per harvested pair, equal for pairs of the same picture.
        """
        keys = pair_keys(image_ids)[self.indices]
        again = copy.copy(self)
        again.__dict__["keys"] = keys
        return again

    def site(self, site: Site | str) -> SitePlan:
        """Return the plan of a site.

        Raises:
            UnknownNameError: the site was not harvested.
        """
        for plan in self.plan.sites:
            if str(plan.site) == str(site):
                return plan
        raise unknown_name("site in this cache", str(site), [str(s) for s in self.sites])

    def folder_of(self, site: Site | str) -> Path:
        """Return the folder of a site, for `cached_activations_path` of SAELens' ActivationsStore."""
        return self.folder / str(self.site(site).site)

    def provenance(self, sites: Sequence[Site | str], *, centred: bool) -> Provenance:
        """Return the provenance of a dictionary trained on these sites."""
        plans = [self.site(s) for s in sites]
        return Provenance(
            model=self.plan.model,
            sites=tuple(str(p.site) for p in plans),
            d_in=plans[0].schema.d_in,
            token=self.plan.token,
            centred=centred,
            pairs_sha256=self.plan.pairs_sha256,
        )

    def batches(
        self, image: Site | str | None, text: Site | str | None, *, keep: Keep | None = None, batch_size: int = 1024
    ) -> Iterator[PairedActs]:
        """Return activations in the order of the cache, float32, `batch_size` pairs at a time.

        Args:
            image: a vision site or its name, or None.
            text: a text site or its name, or None.
            keep: function from keys to a mask of the pairs to keep; None keeps all.
            batch_size: pairs per batch; with many rows per pair a batch has as many ids as rows.
        """
        if image is None and text is None:
            raise InputError(expected="a site to read", found="none", fix="pass image=, text= or both")
        many = [str(s) for s in (image, text) if s is not None and self.site(s).token in ("patches", "all")]
        if many and image is not None and text is not None:
            raise InputError(
                expected="one row per pair when both towers are read",
                found=f"many rows per pair at {', '.join(many)}",
                fix="read the towers one at a time",
            )
        # Pages of a mapped file count as memory of the process, so a pass holds few files open.
        files = lru_cache(maxsize=4)(self._open_file)
        for group in self._groups(keep, batch_size):
            ids = np.concatenate([self._ids(block) for block in group])
            sites = [s for s in (image, text) if s is not None]
            read = {s: [self._stored(block, s, files).float() for block in group] for s in sites}
            if many:
                ids = np.repeat(ids, np.concatenate([self.counts(block, next(iter(read))) for block in group]))
            rows = {s: torch.cat(parts) if len(parts) > 1 else parts[0] for s, parts in read.items()}
            yield PairedActs(tuple(ids), *(None if s is None else rows[s] for s in (image, text)))

    def blocks(self, keep: Keep | None, size: int) -> Iterator[Block]:
        """Yield the cache in blocks of up to `size` consecutive pairs, each within one shard."""
        offset = 0
        for record in self.records:
            here = slice(offset, offset + record.rows)
            mask = np.ones(record.rows, dtype=bool) if keep is None else np.asarray(keep(self.keys[here]))
            for start in range(0, record.rows, size):
                yield Block(record.shard, start + np.flatnonzero(mask[start : start + size]).astype(np.int64))
            offset += record.rows

    def rows(self, block: Block, site: Site | str) -> Float[Tensor, "row d_in"]:
        """Return the rows of a block at a site without padding, float32."""
        return self.stored(block, site).float()

    def stored(self, block: Block, site: Site | str) -> Float[Tensor, "row d_in"]:
        """Return the rows of a block at a site without padding, in the dtype on disk."""
        return self._stored(block, site, self._file)

    def _stored(
        self, block: Block, site: Site | str, files: Callable[[str, int], ShardFile]
    ) -> Float[Tensor, "row d_in"]:
        if not len(block.kept):
            return torch.zeros(0, self.site(site).schema.d_in)
        first, last = int(block.kept[0]), int(block.kept[-1]) + 1
        found = files(str(site), block.shard).read(first, last)
        whole = last - first == len(block.kept)
        # The file is mapped read-only, so torch needs a copy. It converts float16 faster than NumPy.
        acts = torch.from_numpy(found.copy() if whole else found[block.kept - first])
        if self._padded(site):
            real = np.arange(acts.shape[1]) < self.counts(block, site)[:, None]
            return acts[torch.from_numpy(real)]
        return acts.reshape(-1, acts.shape[2])

    def counts(self, block: Block, site: Site | str) -> Int64[np.ndarray, " pair"]:
        """Return the number of rows of each pair of a block at a site."""
        if self._padded(site):
            return self._lengths(block.shard)[block.kept]
        return np.full(len(block.kept), self.site(site).schema.context_size)

    def _padded(self, site: Site | str) -> bool:
        plan = self.site(site)
        return plan.site.side == "text" and plan.token == "all"

    def _groups(self, keep: Keep | None, size: int) -> Iterator[list[Block]]:
        group: list[Block] = []
        missing = size
        for block in self.blocks(keep, size):
            kept = block.kept
            while len(kept):
                group.append(Block(block.shard, kept[:missing]))
                kept = kept[missing:]
                missing -= len(group[-1].kept)
                if missing == 0:
                    yield group
                    group, missing = [], size
        if group:
            yield group

    def _ids(self, block: Block) -> np.ndarray:
        return self._shard_ids(block.shard)[block.kept]

    def _read_ids(self, shard: int) -> np.ndarray:
        return np.array(self._pairs(shard)["id"].to_pylist(), dtype=object)

    def _pairs(self, shard: int) -> pa.Table:
        return read_table(self.folder / "pairs" / shard_name(shard, self.plan.n_shards))

    def _read_lengths(self, shard: int) -> Int64[np.ndarray, " pair"]:
        return self._pairs(shard)["text_length"].to_numpy().astype(np.int64)

    def _open_file(self, site: str, shard: int) -> ShardFile:
        path = self.folder / site / shard_name(shard, self.plan.n_shards)
        return ShardFile(path, Site.parse(site).hook)
