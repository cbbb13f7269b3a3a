"""From a model and pairs to a cache on disk: whole shards or none, resumed where it stopped, split over processes."""

import hashlib
import os
import shutil
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Never

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Int32, Shaped
from tqdm.auto import tqdm

from cliplens.distributed import Group
from cliplens.errors import InputError, MismatchError, NonFiniteError, PairsError, unknown_name
from cliplens.files import write_json
from cliplens.hooked import HookedCLIP
from cliplens.pairs import Decoded, Decoder, Pairs, Quarantine
from cliplens.records import Pair
from cliplens.sites import Site
from cliplens.store.arrow import HashedStream, ShardSchema
from cliplens.store.cache import Cache
from cliplens.store.manifest import (
    MANIFEST,
    SHUFFLES,
    Plan,
    ShardRecord,
    SitePlan,
    read_plan,
    record_path,
    refuse_other,
    shard_name,
    write_plan,
)
from cliplens.store.memory import trim_memory
from cliplens.stream import Indices, ReadBatch, SiteActs, SiteReader, decoded_batches, finite

_SHARD_BYTES = 256 * 2**20
_FEW_PAIRS = 256
_PROBED = 64
_WORTH_SAYING = 100 * 2**20
_WAITING_WRITES = 4
_FLOAT16_MAX = 65504.0
_AHEAD = {True: "; going on where it stopped", False: ": nothing to do"}


def harvest(
    clip: HookedCLIP,
    pairs: Pairs,
    sites: Sequence[Site],
    folder: Path | str,
    *,
    token: str = "auto",
    dtype: str = "float16",
    batch_size: int = 64,
    shard_pairs: int | None = None,
    shuffle: str = "all",
    seed: int = 0,
    quarantine: Quarantine | None = None,
    workers: int = 0,
    autocast: str | None = None,
    compile: bool = False,
    verify: bool = True,
) -> Cache:
    """Read every site for every pair, once, into a cache. Run again after any interruption it goes on where it
    stopped, and the cache is, bit for bit, what an uninterrupted run writes.

    Under `torchrun` every process takes its share of the shards; the cache is the same as one process makes.

    Args:
        clip: the model.
        pairs: what to show it; bad pairs are left out of the cache, listed in it, and set aside in the quarantine.
        sites: several of both towers are read in one pass, which stops at the deepest.
        folder: where the cache goes; docs/cache-format.md says what lies in it.
        token: see `cliplens.stream.SiteReader`; "patches" and "all" keep many positions per pair.
        dtype: "float16" or "float32", on disk.
        batch_size: pairs per forward pass.
        shard_pairs: pairs per shard; None takes as many as fill 256 MB, and at least 64 shards of a large set.
        shuffle: "all" permutes all pairs, "local" only within a shard (for sources that are slow out of order), "none".
        seed: of the permutation.
        quarantine: None stops at the usual fraction of bad pairs.
        workers: processes that decode images.
        autocast: see `cliplens.stream.SiteReader`; part of the plan, as it changes the bytes.
        compile: read through `torch.compile`, one graph for each tower; part of the plan too.
        verify: compare the hashes of shards already there, and redo the damaged ones; False trusts their sizes.

    Raises:
        InputError: the disk has no room for it.
        MismatchError: the folder holds another harvest.
        NonFiniteError: nan or inf in activations, or beyond the range of float16.
        PairsError: too many bad pairs.
    """
    path = Path(folder)
    reader = SiteReader(clip, sites, token, autocast, batch_size if compile else None)
    group = Group.current()
    decoder = reader.decoder(pairs)
    held = Quarantine() if quarantine is None else quarantine
    plan = _plan(reader, pairs, decoder, dtype, batch_size, shard_pairs, shuffle, seed)
    with group.first_alone():
        _prepare(path, plan, group)
    mine = plan.names[group.rank :: group.size]
    looked_at = tqdm(mine, desc="verifying shards", unit="shard", delay=2, disable=group.rank != 0)
    todo = list(_missing(path, looked_at, verify=verify))
    if group.rank == 0 and len(todo) < len(mine):
        _say(f"{len(mine) - len(todo)} of {len(mine)} shards are there already" + _AHEAD[bool(todo)])
    for shard in todo:
        record_path(path, shard).unlink(missing_ok=True)
    _set_aside(path, plan, pairs, held)
    _write_shards(path, plan, todo, reader, decoder, held, workers, group)
    group.wait()
    with group.first_alone():
        if group.rank == 0:
            finish(path, plan)
    _set_aside(path, plan, pairs, held)
    return Cache.open(path)


def _plan(
    reader: SiteReader,
    pairs: Pairs,
    decoder: Decoder,
    dtype: str,
    batch_size: int,
    shard_pairs: int | None,
    shuffle: str,
    seed: int,
) -> Plan:
    if dtype not in ("float16", "float32"):
        raise InputError(
            expected="float16 or float32 on disk (Arrow has no bfloat16)", found=repr(dtype), fix="use dtype='float16'"
        )
    if shuffle not in SHUFFLES:
        raise unknown_name("shuffle", shuffle, SHUFFLES)
    forms = tuple(_probe(reader, decoder, dtype))
    largest = max(s.schema.bytes_per_pair for s in forms)
    by_bytes = max(_SHARD_BYTES // largest, 1)
    default = max(min(by_bytes, max(len(pairs) // 64, _FEW_PAIRS)) // batch_size, 1) * batch_size
    return Plan(
        model=reader.clip.identity,
        pairs=pairs.name,
        pairs_sha256=pairs.sha256,
        n_pairs=len(pairs),
        sites=forms,
        token=reader.token,
        dtype=dtype,
        compute=_compute(reader),
        batch_size=batch_size,
        shard_pairs=shard_pairs or default,
        shuffle=shuffle,
        seed=seed,
    )


def _compute(reader: SiteReader) -> str:
    said = [str(reader.clip.dtype).removeprefix("torch.")]
    said += [f"autocast {reader.autocast}"] if reader.autocast else []
    return ", ".join([*said, "compiled"] if reader.compiled else said)


def _probe(reader: SiteReader, decoder: Decoder, dtype: str) -> Iterator[SitePlan]:
    """The form of each site, from the first pair that can be read."""
    bad: list[tuple[Pair, str]] = []
    for place in range(min(len(decoder), _PROBED)):
        decoded = decoder[np.array([place], dtype=np.int64)]
        if decoded.ids:
            break
        bad += decoded.bad
    else:
        pair, reason = bad[0]
        what = f" ({pair.image})" if isinstance(pair.image, Path) else ""
        raise PairsError(
            expected=f"a good pair among the first {_PROBED}",
            found=f"none; pair {pair.id!r}: {reason}{what}",
            fix="check where images and captions lie: --image-root, --image-column, --caption-column",
        )
    # The form is the same without compiling, which a finished harvest need not wait for.
    batch = SiteReader(reader.clip, reader.sites, reader.token).read(decoded)
    for site, found in batch.sites.items():
        context, width = found.acts.shape[1:]
        token = found.token
        yield SitePlan(
            site, ShardSchema(site.hook, context, width, dtype, token_ids=token in ("all", "patches")), token
        )


def _prepare(path: Path, plan: Plan, group: Group) -> None:
    """Manifest, folders, room on disk; leftovers of a killed run are removed. The first process does it for all."""
    there = read_plan(path)
    if there is not None:
        refuse_other(path, there[0], plan)
    if group.rank != 0:
        return
    if there is None and path.is_dir() and any(path.iterdir()):
        raise MismatchError(
            expected="an empty or new folder, or one with this cache",
            found=f"{path} with other files in it",
            fix="give another folder",
        )
    path.mkdir(parents=True, exist_ok=True)
    for leftover in path.glob("**/.*.partial"):
        leftover.unlink(missing_ok=True)
    _check_room(path, plan)
    if there is None:
        write_plan(path, plan, None)


def _check_room(path: Path, plan: Plan) -> None:
    done = sum(r.rows for r in (ShardRecord.load(path, n) for n in plan.names) if r is not None)
    need = plan.bytes_per_pair * max(plan.n_pairs - done, 0)
    free = shutil.disk_usage(path).free
    if need > _WORTH_SAYING:
        _say(f"{need / 1e9:.1f} GB to write into {path}, {free / 1e9:.1f} GB free")
    if need > free:
        raise InputError(
            expected=f"room for {need / 1e9:.2f} GB in {path}",
            found=f"{free / 1e9:.2f} GB free",
            fix="free some, choose fewer hooks or pairs, or one position per pair (token='auto')",
        )


def _missing(path: Path, shards: Iterable[int], *, verify: bool) -> Iterator[int]:
    """The shards that are not there, or no longer as they were written."""
    for shard in shards:
        record = ShardRecord.load(path, shard)
        damage = None if record is None else record.damage(path, by_hash=verify)
        if damage:
            _say(f"shard {shard} is redone: {damage}")
        if record is None or damage:
            yield shard


def _say(what: str) -> None:
    tqdm.write(f"activations: {what}", file=sys.stderr)


class _Batches(Iterable[Indices]):
    """The batches of shards, in order; no batch lies in two shards."""

    def __init__(self, plan: Plan, shards: Sequence[int]) -> None:
        self.plan, self.shards = plan, shards

    def __len__(self) -> int:
        return sum(self.of(n) for n in self.shards)

    def of(self, shard: int) -> int:
        """Number of batches of a shard."""
        return -(-self.plan.pairs_in(shard) // self.plan.batch_size)

    def __iter__(self) -> Iterator[Indices]:
        for shard in self.shards:
            places = self.plan.places(shard)
            for start in range(0, len(places), self.plan.batch_size):
                yield places[start : start + self.plan.batch_size]


def _write_shards(
    path: Path,
    plan: Plan,
    todo: Sequence[int],
    reader: SiteReader,
    decoder: Decoder,
    held: Quarantine,
    workers: int,
    group: Group,
) -> None:
    """The model runs here; casting, hashing and writing run in a thread beside it."""
    batches = _Batches(plan, todo)
    decoded = decoded_batches(decoder, batches, workers)
    if todo and reader.compiled and group.rank == 0:
        _say("the model is compiled first: ten seconds to a minute for each tower")
    with ThreadPoolExecutor(1) as pool, _bar(plan, todo, group) as bar:
        waiting: deque[Future[None]] = deque()
        for shard in todo:
            draft = ShardDraft(path, plan, shard)
            try:
                for number in range(batches.of(shard)):
                    found = next(decoded)
                    for pair, reason in found.bad:
                        held.add(pair, reason)
                    if found.bad:
                        held.check(plan.n_pairs)
                    bar.update(len(found.ids) + len(found.bad))
                    read = reader.read(found) if found.ids else None
                    batch = shard * (-(-plan.shard_pairs // plan.batch_size)) + number
                    waiting.append(pool.submit(draft.add, found, read, batch))
                    while len(waiting) > _WAITING_WRITES:
                        waiting.popleft().result()
                waiting.append(pool.submit(draft.commit))
            except BaseException:
                # What waits may still be written to: let it end before the files go.
                while waiting:
                    waiting.popleft().exception()
                draft.abandon()
                raise
        while waiting:
            waiting.popleft().result()


def _bar(plan: Plan, todo: Sequence[int], group: Group) -> "tqdm[Never]":
    """Progress over this process' share, what is there already included; the first process shows its own."""
    whole, ahead = (sum(map(plan.pairs_in, shards)) for shards in (plan.names[group.rank :: group.size], todo))
    share = f" (process 1 of {group.size})" if group.size > 1 else ""
    return tqdm(
        total=whole,
        initial=whole - ahead,
        desc=f"reading activations{share}",
        unit="pair",
        delay=2,
        disable=group.rank != 0 or not todo,
    )


class ShardDraft:
    """A shard while it is written: hidden files that take their names only when all of it is on disk."""

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
            NonFiniteError: nan or inf, before or after the cast.
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
        """Append pairs: per site, values as they are stored and token ids."""
        self.rows += len(ids)
        for plan in self.plan.sites:
            for batch in plan.schema.record_batches(*sites[plan.site]):
                self._sites[plan.site].add(batch)
        columns = [pa.array(places), pa.array(ids, type=pa.string())]
        if lengths is not None:
            columns.append(pa.array(lengths))
        self._pairs.add(pa.RecordBatch.from_arrays(columns, schema=_pairs_schema(self.keeps_lengths)))

    def commit(self) -> None:
        """Everything onto disk under its own name, the record last."""
        files = {}
        for folder, stream in [("pairs", self._pairs), *((str(s), f) for s, f in self._sites.items())]:
            files[f"{folder}/{self.name}"] = stream.finish()
        for name in files:
            self._partial(name).replace(self.folder / name)
        ShardRecord(self.shard, self.rows, self.truncated, tuple(self.bad), files).save(self.folder)
        trim_memory()

    def abandon(self) -> None:
        """Nothing of it remains."""
        for folder, stream in [("pairs", self._pairs), *((str(s), f) for s, f in self._sites.items())]:
            stream.abandon()
            self._partial(f"{folder}/{self.name}").unlink(missing_ok=True)

    def _open(self, folder: str, schema: pa.Schema) -> HashedStream:
        (self.folder / folder).mkdir(parents=True, exist_ok=True)
        return HashedStream(self._partial(f"{folder}/{self.name}"), schema)

    def _partial(self, name: str) -> Path:
        path = self.folder / name
        return path.with_name(f".{path.name}.{os.getpid()}.partial")


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
                fix="store them as float32 (--dtype float32)",
            )
        acts = acts.to(torch.float16)
    return acts.cpu().numpy()


def _token_ids(plan: SitePlan, found: SiteActs, read: ReadBatch) -> Int32[np.ndarray, "pair pos"]:
    """Captions: their token ids. Images: 0 where CLS stands, else the image's place in the pairs, plus 1."""
    if plan.site.side == "text" and read.tokens is not None:
        return read.tokens.numpy().astype(np.int32)
    ids = np.repeat((read.decoded.indices + 1)[:, None], plan.schema.context_size, axis=1).astype(np.int32)
    if plan.token == "all" and found.special is not None:
        ids[np.arange(len(ids)), found.special.cpu().numpy()] = 0
    return ids


def _text_lengths(plan: Plan, read: ReadBatch) -> Int32[np.ndarray, " pair"]:
    site = next(s.site for s in plan.sites if s.site.side == "text" and s.token == "all")
    return read.sites[site].lengths.cpu().numpy().astype(np.int32)


def _set_aside(path: Path, plan: Plan, pairs: Pairs, held: Quarantine) -> None:
    """The bad pairs of finished shards go to the quarantine too, and count."""
    for number in plan.names:
        record = ShardRecord.load(path, number)
        for place, reason in () if record is None else record.bad:
            held.add(pairs[place], reason)
    if held.count:
        held.check(plan.n_pairs)


def finish(path: Path, plan: Plan) -> None:
    """Totals, and beside each site's shards what `datasets` and a reader of one folder need."""
    records = [r for r in (ShardRecord.load(path, n) for n in plan.names) if r is not None]
    if len(records) < plan.n_shards:
        return
    for site in plan.sites:
        folder = path / str(site.site)
        mine = {n: w for r in records for n, w in r.files.items() if n.startswith(f"{site.site}/")}
        names = [shard_name(n, plan.n_shards) for n in plan.names]
        write_json(folder / "dataset_info.json", {"features": site.schema.features})
        write_json(folder / "state.json", _state(plan, names))
        files = {n.rpartition("/")[2]: asdict(w) for n, w in mine.items()}
        write_json(folder / MANIFEST, {**plan.as_json(), "site": str(site.site), "files": files})
    digest = hashlib.sha256()
    for record in records:
        for name, written in sorted(record.files.items()):
            digest.update(f"{name} {written.sha256}\n".encode())
    totals = {
        "rows": sum(r.rows for r in records),
        "truncated": sum(r.truncated for r in records),
        "bad": sum(len(r.bad) for r in records),
        "bytes": sum(w.bytes for r in records for w in r.files.values()),
        "sha256": digest.hexdigest(),
    }
    write_plan(path, plan, totals)


def _state(plan: Plan, names: Sequence[str]) -> Mapping[str, object]:
    empty = ("_format_columns", "_format_type", "_split")
    return {
        "_data_files": [{"filename": n} for n in names],
        "_fingerprint": plan.sha256[:16],
        **dict.fromkeys(empty),
        "_format_kwargs": {},
        "_output_all_columns": False,
    }
