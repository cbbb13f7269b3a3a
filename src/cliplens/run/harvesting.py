"""Harvest the activations of every pair, at the sites of the dictionary and at the final embeddings."""

from collections.abc import Sequence
from typing import Any

from cliplens.errors import DamagedError, InputError
from cliplens.hooked import HookedCLIP
from cliplens.pairs import Pairs, Quarantine
from cliplens.run.naming import EMBEDDING
from cliplens.runfolder import RunFolder
from cliplens.settings import Settings
from cliplens.sites import Site
from cliplens.store import Cache, Embeddings, Group, harvest
from cliplens.store.embeddings import EmbeddingsReader
from cliplens.store.manifest import check_covers, read_plan
from cliplens.store.plan import Plan, plan_harvest
from cliplens.stream import SiteReader


def harvest_sites(settings: Settings) -> tuple[Site, ...]:
    """Return the sites of the dictionary, then the final embeddings that judging and naming need."""
    return tuple(dict.fromkeys([*settings.sites, *(Site(side, EMBEDDING) for side in settings.sides)]))


def harvest_plan(clip: HookedCLIP | Embeddings, pairs: Pairs, settings: Settings) -> Plan:
    """Return the plan of a run's harvest. This reads the first readable pair.

    Raises:
        InputError: the hook or the token choice is not possible for this model.
        PairsError: none of the first pairs can be read.
    """
    compiled = settings.forward_batch if settings.compile else None
    if isinstance(clip, Embeddings):
        reader: SiteReader = EmbeddingsReader(clip, harvest_sites(settings))
    else:
        reader = SiteReader(clip, harvest_sites(settings), settings.token, settings.autocast, compiled)
    return plan_harvest(
        reader,
        pairs,
        reader.decoder(pairs),
        settings.cache_dtype,
        settings.forward_batch,
        shard_pairs=None,
        shuffle="all",
        seed=0,
    )


def harvest_run(
    clip: HookedCLIP | Embeddings,
    pairs: Pairs,
    settings: Settings,
    folder: RunFolder,
    group: Group,
    *,
    again: bool,
    sites: Sequence[Site] | None = None,
) -> Cache:
    """Read all sites in one pass into the run folder, continuing an earlier harvest.

    With `again`, the list of bad pairs is written again. Without it, a finished harvest is only verified and repaired.
    `sites` are read in place of those of the settings. Activations that the run shares with others are only read.
    """
    if folder.shares_activations:
        return _open_shared(harvest_plan(clip, pairs, settings), pairs, settings, folder, again=again)
    how: dict[str, Any] = {"token": settings.token, "dtype": settings.cache_dtype, "autocast": settings.autocast}
    return harvest(
        clip,
        pairs,
        harvest_sites(settings) if sites is None else sites,
        folder.activations,
        **how,
        forward_batch=settings.forward_batch,
        compile=settings.compile,
        workers=settings.workers,
        quarantine=Quarantine(folder.quarantine if again and group.rank == 0 else None, max_bad=settings.max_bad),
    )


_REPAIR = "finish or repair the sweep: cliplens sweep with its options and --resume"


def check_shared(folder: RunFolder, asked: Plan) -> None:
    """Check that the activations that a run shares with others are finished and hold what the run reads.

    Raises:
        InputError: there are none, or their harvest was not finished.
        MismatchError: they were made from other pairs or another model, with other options, or lack a site.
    """
    there = folder.activations
    found = read_plan(there)
    if found is None or not found[1]:
        held = "none" if found is None else "a part of them"
        raise InputError(expected=f"finished activations in {there}", found=held, fix=_REPAIR)
    check_covers(there, found[0], asked)


def _open_shared(asked: Plan, pairs: Pairs, settings: Settings, folder: RunFolder, *, again: bool) -> Cache:
    """Open the activations of several runs, after comparing every file with its hash.

    Raises:
        DamagedError: a file is missing or was altered.
        InputError, MismatchError: as `check_shared`.
    """
    check_shared(folder, asked)
    there = folder.activations
    cache = Cache.open(there)
    held = Quarantine(folder.quarantine if again else None, max_bad=settings.max_bad)
    for record in cache.records:
        if damage := record.damage(there, by_hash=True):
            raise DamagedError(expected=f"the activations in {there} as they were written", found=damage, fix=_REPAIR)
        for place, reason in record.bad:
            held.add(pairs[place], reason)
    if held.count:
        held.check(asked.n_pairs)
    return cache
