"""Harvest the activations of every pair, at the sites of the dictionary and at the final embeddings."""

from typing import Any

from cliplens.hooked import HookedCLIP
from cliplens.pairs import Pairs, Quarantine
from cliplens.run.naming import EMBEDDING
from cliplens.runfolder import RunFolder
from cliplens.settings import Settings
from cliplens.sites import Site
from cliplens.store import Cache, Embeddings, Group, harvest
from cliplens.store.embeddings import EmbeddingsReader
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
    clip: HookedCLIP | Embeddings, pairs: Pairs, settings: Settings, folder: RunFolder, group: Group, *, again: bool
) -> Cache:
    """Read all sites in one pass into the run folder, continuing an earlier harvest.

    With `again`, the list of bad pairs is written again. Without it, a finished harvest is only verified and repaired.
    """
    how: dict[str, Any] = {"token": settings.token, "dtype": settings.cache_dtype, "autocast": settings.autocast}
    return harvest(
        clip,
        pairs,
        harvest_sites(settings),
        folder.activations,
        **how,
        forward_batch=settings.forward_batch,
        compile=settings.compile,
        workers=settings.workers,
        quarantine=Quarantine(folder.quarantine if again and group.rank == 0 else None, max_bad=settings.max_bad),
    )
