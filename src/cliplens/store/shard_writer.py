"""Write one shard atomically."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Int32, Shaped

from cliplens.errors import NonFiniteError
from cliplens.files import move, partial_path
from cliplens.pairs import Decoded
from cliplens.sites import Site
from cliplens.store.arrow import HashedStream
from cliplens.store.manifest import ShardRecord, shard_name
from cliplens.store.memory import trim_memory
from cliplens.store.plan import Plan, SitePlan
from cliplens.stream import Indices, ReadBatch, SiteActs, finite

_FLOAT16_MAX = 65504.0


class ShardWriter:
    """A shard that is being written: hidden files, which are renamed once all of them are on disk."""

    def __init__(self, folder: Path, plan: Plan, shard: int) -> None:
        self.folder, self.plan, self.shard = folder, plan, shard
        self.name = shard_name(shard, plan.n_shards)
        self.rows = self.truncated = 0
        self.bad: list[tuple[int, str]] = []
        self.keeps_lengths = any(s.site.side == "text" and s.token == "all" for s in plan.sites)
        self._pairs = self._open("pairs", _pairs_schema(self.keeps_lengths))
        self._sites = {s.site: self._open(str(s.site), s.schema.arrow) for s in plan.sites}

    def add(self, decoded: Decoded, read: ReadBatch | None, number: int) -> None:
        """Append one batch.

        Raises:
            NonFiniteError: a value is nan or inf, before or after the cast.
        """
        self.bad += [(place, reason) for place, (_, reason) in zip(_bad_places(decoded), decoded.bad, strict=True)]
        if read is None:
            return
        finite(read, number)
        self.truncated += read.truncated
        sites = {}
        for plan in self.plan.sites:
            found = read.sites[plan.site]
            ids = _token_ids(plan, found, read) if plan.schema.token_ids else None
            sites[plan.site] = (_cast(found, plan, number), ids)
        lengths = _text_lengths(self.plan, read) if self.keeps_lengths else None
        self.write(decoded.indices, decoded.ids, sites, lengths)

    def write(
        self,
        places: Indices,
        ids: Sequence[str],
        sites: Mapping[Site, tuple[Shaped[np.ndarray, "pair ..."], Int32[np.ndarray, "pair ..."] | None]],
        lengths: Int32[np.ndarray, " pair"] | None,
    ) -> None:
        """Append pairs: for each site, the values in the stored dtype and the token ids."""
        self.rows += len(ids)
        for plan in self.plan.sites:
            for batch in plan.schema.record_batches(*sites[plan.site]):
                self._sites[plan.site].add(batch)
        columns = [pa.array(places), pa.array(ids, type=pa.string())]
        if lengths is not None:
            columns.append(pa.array(lengths))
        self._pairs.add(pa.RecordBatch.from_arrays(columns, schema=_pairs_schema(self.keeps_lengths)))

    def commit(self) -> None:
        """Flush all files to disk and rename them, the record last."""
        files = {}
        for folder, stream in [("pairs", self._pairs), *((str(s), f) for s, f in self._sites.items())]:
            files[f"{folder}/{self.name}"] = stream.finish()
        for name in files:
            move(self._partial(name), self.folder / name)
        ShardRecord(self.shard, self.rows, self.truncated, tuple(self.bad), files, self.plan.sha256).save(self.folder)
        trim_memory()

    def abandon(self) -> None:
        """Close and remove the hidden files."""
        for folder, stream in [("pairs", self._pairs), *((str(s), f) for s, f in self._sites.items())]:
            stream.abandon()
            self._partial(f"{folder}/{self.name}").unlink(missing_ok=True)

    def _open(self, folder: str, schema: pa.Schema) -> HashedStream:
        (self.folder / folder).mkdir(parents=True, exist_ok=True)
        return HashedStream(self._partial(f"{folder}/{self.name}"), schema)

    def _partial(self, name: str) -> Path:
        return partial_path(self.folder / name)


def _pairs_schema(lengths: bool) -> pa.Schema:
    fields = [pa.field("place", pa.int64()), pa.field("id", pa.string())]
    return pa.schema([*fields, pa.field("text_length", pa.int32())] if lengths else fields)


def _bad_places(decoded: Decoded) -> list[int]:
    kept = set(decoded.indices.tolist())
    return [p for p in decoded.requested.tolist() if p not in kept]


def _cast(found: SiteActs, plan: SitePlan, number: int) -> Shaped[np.ndarray, "pair pos d_in"]:
    acts = found.acts
    if plan.schema.dtype == "float16":
        largest = max(float(v.abs()) for v in torch.aminmax(acts))
        if largest > _FLOAT16_MAX:
            raise NonFiniteError(
                expected=f"activations of {plan.site} within float16's range ({_FLOAT16_MAX:g})",
                found=f"{largest:g} in batch {number}",
                fix="store them as float32 (--cache-dtype float32, in Python dtype='float32')",
            )
        acts = acts.to(torch.float16)
    return acts.cpu().numpy()


def _token_ids(plan: SitePlan, found: SiteActs, read: ReadBatch) -> Int32[np.ndarray, "pair pos"]:
    """Return the token ids of captions. For images: 0 at the class token, else the index of the pair plus 1."""
    if plan.site.side == "text" and read.tokens is not None:
        return read.tokens.numpy().astype(np.int32)
    ids = np.repeat((read.decoded.indices + 1)[:, None], plan.schema.context_size, axis=1).astype(np.int32)
    if plan.token == "all" and found.special is not None:
        ids[np.arange(len(ids)), found.special.cpu().numpy()] = 0
    return ids


def _text_lengths(plan: Plan, read: ReadBatch) -> Int32[np.ndarray, " pair"]:
    site = next(s.site for s in plan.sites if s.site.side == "text" and s.token == "all")
    return read.sites[site].lengths.cpu().numpy().astype(np.int32)
