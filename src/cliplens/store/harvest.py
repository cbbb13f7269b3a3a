"""Read activations of a model on pairs into a cache on disk.

Shards are written atomically. A harvest that was stopped continues where it stopped. Processes divide the shards.
"""

import shutil
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from cliplens.deprecation import renamed_keywords
from cliplens.distributed import Group
from cliplens.errors import DamagedError, InputError, MismatchError
from cliplens.faults import size
from cliplens.files import read_json, remove_leftovers
from cliplens.hooked import HookedCLIP
from cliplens.pairs import Decoder, Pairs, Quarantine
from cliplens.progress import Bar
from cliplens.sites import Site, as_sites
from cliplens.store.cache import Cache
from cliplens.store.embeddings import Embeddings, EmbeddingsReader
from cliplens.store.manifest import (
    MANIFEST,
    ShardRecord,
    check_same_plan,
    read_plan,
    record_path,
    write_plan,
    write_totals,
)
from cliplens.store.plan import Plan, plan_harvest
from cliplens.store.shard_writer import ShardWriter
from cliplens.stream import Indices, SiteReader, decoded_batches

_WORTH_SAYING = 100 * 2**20
_WAITING_WRITES = 4
_AHEAD = {True: "; going on where it stopped", False: ": nothing to do"}


@renamed_keywords(batch_size="forward_batch")
def harvest(
    clip: HookedCLIP | Embeddings,
    pairs: Pairs,
    sites: Sequence[Site | str],
    folder: Path | str,
    *,
    token: str = "auto",
    dtype: str = "float16",
    forward_batch: int = 64,
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

    Under `torchrun` the processes divide the shards. The cache is the same as that of one process.

    Args:
        clip: the model, or `Embeddings`.
        pairs: images and captions. Bad pairs are not in the cache; it lists them, and the quarantine collects them.
        sites: sites of one or both towers. Each tower runs once per batch and stops after its deepest site.
        folder: folder of the cache; docs/cache-format.md specifies its files.
        token: see `cliplens.stream.SiteReader`; "patches" and "all" keep many positions per pair.
        dtype: "float16" or "float32", on disk.
        forward_batch: pairs per forward pass; part of the plan.
        shard_pairs: pairs per shard; None fills shards of at most 256 MB and makes at least 64 shards of a large set.
        shuffle: "all" permutes all pairs, "local" only within a shard (for sources that are slow out of order), "none".
        seed: seed of the permutation.
        quarantine: collects bad pairs; None allows 1 % of them.
        workers: processes that decode images.
        autocast: see `cliplens.stream.SiteReader`; part of the plan, as it changes the bytes.
        compile: use `torch.compile`, one graph per tower; part of the plan.
        verify: compare the hashes of existing shards and rewrite damaged ones; False compares sizes only.

    Raises:
        InputError: the disk has too little space.
        MismatchError: the folder holds a cache made by another plan.
        NonFiniteError: nan or inf in activations, or beyond the range of float16.
        PairsError: too many bad pairs.
    """
    path = Path(folder)
    if isinstance(clip, Embeddings):
        reader: SiteReader = EmbeddingsReader(clip, as_sites(sites))
    else:
        reader = SiteReader(clip, sites, token, autocast, forward_batch if compile else None)
    group = Group.current()
    decoder = reader.decoder(pairs)
    held = Quarantine() if quarantine is None else quarantine
    plan = plan_harvest(reader, pairs, decoder, dtype, forward_batch, shard_pairs, shuffle, seed)
    with group.first_alone():
        _prepare(path, plan, group)
    mine = plan.names[group.rank :: group.size]
    looked_at = Bar(mine, desc="verifying shards", unit="shard", disable=group.rank != 0)
    todo = list(_missing(path, plan, looked_at, verify=verify))
    if group.rank == 0 and len(todo) < len(mine):
        _say(f"{len(mine) - len(todo)} of {len(mine)} shards are there already" + _AHEAD[bool(todo)])
    for shard in todo:
        record_path(path, shard).unlink(missing_ok=True)
    _set_aside(path, plan, pairs, held)
    _write_shards(path, plan, todo, reader, decoder, held, workers, group)
    group.wait()
    with group.first_alone():
        if group.rank == 0:
            write_totals(path, plan)
    _set_aside(path, plan, pairs, held)
    return Cache.open(path)


def _prepare(path: Path, plan: Plan, group: Group) -> None:
    """Check the folder, remove unfinished files, and write the manifest if it is missing or damaged.

    Only the first process does this. Records of finished shards contain the hash of their plan, so a missing or damaged
    manifest does not invalidate them.
    """
    there = _readable_plan(path)
    if there is not None:
        check_same_plan(path, there, plan)
    if group.rank != 0:
        return
    visible = {p.name for p in path.iterdir() if not p.name.startswith(".")} if path.is_dir() else set()
    if there is None and visible - {MANIFEST, "shards", "pairs", *(str(s.site) for s in plan.sites)}:
        raise MismatchError(
            expected="a new folder, an empty folder, or the folder of this cache",
            found=f"{path} with other files in it",
            fix="pass another folder",
        )
    path.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path)
    _check_room(path, plan)
    if there is None:
        for record in sorted(path.glob("shards/*.json")):
            if _plan_of(record) != plan.sha256:
                record.unlink()
        write_plan(path, plan, None)


def _readable_plan(path: Path) -> Plan | None:
    try:
        found = read_plan(path)
    except DamagedError as error:
        _say(f"the manifest is written again: {error.found}")
        return None
    return None if found is None else found[0]


def _plan_of(record: Path) -> str | None:
    try:
        found = read_json(record)
    except DamagedError:
        return None
    return found.get("plan") if isinstance(found, dict) else None


def _check_room(path: Path, plan: Plan) -> None:
    there = sum(p.stat().st_size for p in path.glob("*/*.arrow") if not p.name.startswith("."))
    need = max(plan.bytes_per_pair * plan.n_pairs - there, 0)
    free = shutil.disk_usage(path).free
    if need > _WORTH_SAYING:
        _say(f"{size(need)} to write into {path}, {size(free)} free")
    if need > free:
        raise InputError(
            expected=f"{size(need)} of free space in {path}",
            found=f"{size(free)} free",
            fix="free disk space, choose fewer hooks or pairs, or store one position per pair (token='auto')",
        )


def _missing(path: Path, plan: Plan, shards: Iterable[int], *, verify: bool) -> Iterator[int]:
    """Yield the shards that are missing or damaged."""
    for shard in shards:
        try:
            record = ShardRecord.load(path, shard)
        except DamagedError as error:
            _say(f"shard {shard} is redone: {error.found}")
            yield shard
            continue
        damage = None if record is None else record.damage(path, by_hash=verify)
        if record is not None and record.plan not in (None, plan.sha256):
            damage = "its record belongs to another harvest"
        if damage:
            _say(f"shard {shard} is redone: {damage}")
        if record is None or damage:
            yield shard


def _say(what: str) -> None:
    Bar.write(f"activations: {what}", file=sys.stderr)


class _Batches(Iterable[Indices]):
    """The batches of shards, in order. A batch never spans two shards."""

    def __init__(self, plan: Plan, shards: Sequence[int]) -> None:
        self.plan, self.shards = plan, shards

    def __len__(self) -> int:
        return sum(self.of(n) for n in self.shards)

    def of(self, shard: int) -> int:
        """Return the number of batches of a shard."""
        return -(-self.plan.pairs_in(shard) // self.plan.batch_size)

    def __iter__(self) -> Iterator[Indices]:
        for shard in self.shards:
            places = self.plan.indices(shard)
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
    """Run the model; cast, hash and write in another thread."""
    batches = _Batches(plan, todo)
    decoded = decoded_batches(decoder, batches, workers)
    if todo and reader.compiled and group.rank == 0:
        _say("the model is compiled first: ten seconds to a minute for each tower")
    with ThreadPoolExecutor(1) as pool, _bar(plan, todo, group) as bar:
        waiting: deque[Future[None]] = deque()
        for shard in todo:
            draft = ShardWriter(path, plan, shard)
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
                # Wait for pending writes before removing the files.
                while waiting:
                    waiting.popleft().exception()
                draft.abandon()
                raise
        while waiting:
            waiting.popleft().result()


def _bar(plan: Plan, todo: Sequence[int], group: Group) -> Bar:
    """Return a progress bar over the shards of this process, finished ones included. The first process shows it."""
    whole, ahead = (sum(map(plan.pairs_in, shards)) for shards in (plan.names[group.rank :: group.size], todo))
    share = f" (process 1 of {group.size})" if group.size > 1 else ""
    return Bar(
        total=whole,
        initial=whole - ahead,
        desc=f"reading activations{share}",
        unit="pair",
        disable=group.rank != 0 or not todo,
    )


def _set_aside(path: Path, plan: Plan, pairs: Pairs, held: Quarantine) -> None:
    """Add the bad pairs of finished shards to the quarantine."""
    for number in plan.names:
        record = ShardRecord.load(path, number)
        for place, reason in () if record is None else record.bad:
            held.add(pairs[place], reason)
    if held.count:
        held.check(plan.n_pairs)
