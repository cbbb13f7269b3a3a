"""The steps in order, and which of them are still to do."""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from tqdm.auto import tqdm

from cliplens import api, registry
from cliplens.contracts import Reporter
from cliplens.errors import InputError
from cliplens.hooked import HookedCLIP
from cliplens.keys import pair_keys
from cliplens.pairs import Pairs, Quarantine
from cliplens.run.context import RunContext
from cliplens.run.degenerate import check_enough
from cliplens.run.dictionary import dictionary_of
from cliplens.run.embeddings import embeddings_of
from cliplens.run.given import open_given
from cliplens.run.naming import EMBEDDING
from cliplens.run.opened import asked_pairs
from cliplens.run.scoring import account_of, score
from cliplens.run.steps import Steps, versions
from cliplens.run.targets import label_of
from cliplens.runfolder import RunFolder
from cliplens.settings import Settings
from cliplens.sites import Site
from cliplens.store import Cache, Embeddings, Group, harvest

Step = Literal["harvest", "train", "score", "report"]


def run(settings: Settings, out: Path | str, *, resume: bool = False, until: Step = "report") -> RunFolder:
    """Do the main job into a folder.

    Args:
        settings: what is asked.
        out: the run folder; made when missing.
        resume: go on with an unfinished run in `out`; without it a folder that holds a run is refused.
        until: the last step to do.

    Under `torchrun` harvest and scoring are shared among the processes; the first one trains, names and writes.

    Raises:
        InputError: the folder holds a run and `resume` is False, or it holds a run that was asked for something else.
    """
    group = Group.current()
    folder = RunFolder(Path(out))
    given = None
    if settings.sae is not None:
        given, settings = open_given(settings)
    if group.rank == 0:
        _prepare(folder, settings, resume)
    steps = Steps(folder, group)
    with steps("load"):
        clip = _model(settings)
        if given is not None and isinstance(clip, HookedCLIP):
            given.check(clip, settings.sites)
        pairs = asked_pairs(settings)
        if until != "harvest":
            check_enough(pair_keys(pairs.ids), settings)
        if settings.target is not None:
            label_of(settings)  # a target that cannot be read is refused before anything is made
        if group.rank == 0:
            _write_settings(folder, settings, clip, pairs)
    with steps("harvest"):
        cache = _harvest(clip, pairs, settings, folder, group).by_picture(pairs.image_ids)
    if group.rank == 0:
        _say_rows(pairs, cache)
    if until == "harvest":
        return folder
    check_enough(cache.keys, settings)
    with steps("train"), group.first_alone():
        dictionary = dictionary_of(clip, cache, settings, folder, resume=resume)
    if until == "train":
        return folder
    if not folder.summary.exists():
        judge = registry.judge(settings.judge) if settings.judge else None
        score(RunContext(clip, pairs, cache, dictionary, settings, folder, group, judge), steps)
    if group.rank == 0 and until == "report":
        write_report(folder)
    return folder


def _model(settings: Settings) -> HookedCLIP | Embeddings:
    if settings.embeddings:
        return embeddings_of(settings)
    return api.load(settings.model, settings.pretrained, device=settings.device, dtype=settings.dtype)


def _say_rows(pairs: Pairs, cache: Cache) -> None:
    """Print how the source was read, and what became of its rows."""
    for line in (*pairs.notes, f"{pairs.name}: {account_of(pairs, cache)}"):
        tqdm.write(f"pairs: {line}", file=sys.stderr)


def write_report(folder: RunFolder, names: Sequence[str] = ("html",)) -> Path:
    """Write the reports named (entry points `cliplens.reports`) into the run folder; the path of the last."""
    return [registry.find("reports", name).make(Reporter).write(folder.path) for name in names][-1]


def _prepare(folder: RunFolder, settings: Settings, resume: bool) -> None:
    out = folder.path
    if not folder.toml.exists():
        if out.exists() and any(out.iterdir()):
            raise InputError(
                expected=f"{out} to be missing, empty, or a run folder",
                found="files that are no run",
                fix="give another --out",
            )
        out.mkdir(parents=True, exist_ok=True)
        return
    if not resume:
        raise InputError(
            expected=f"{out} to hold no run yet",
            found="a run.toml",
            fix="add --resume to go on with it, or give another --out",
        )
    before, now = folder.read_settings()["asked"], settings.asked()
    changed = [
        f"{name} = {now.get(name)!r} (was {before.get(name)!r})"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]
    if changed:
        raise InputError(
            expected=f"what the run in {out} was asked before",
            found=", ".join(changed),
            fix="repeat the earlier options, or give another --out",
        )


def _write_settings(folder: RunFolder, settings: Settings, clip: HookedCLIP | Embeddings, pairs: Pairs) -> None:
    folder.write_settings(
        {
            "asked": settings.asked(),
            "model": asdict(clip.identity),
            "pairs": {"name": pairs.name, "sha256": pairs.sha256, "count": len(pairs)},
            "versions": versions(),
        }
    )


def _harvest(clip: HookedCLIP | Embeddings, pairs: Pairs, settings: Settings, folder: RunFolder, group: Group) -> Cache:
    """The sites the dictionary reads, and the final embeddings that judging and naming need, in one pass."""
    sites = dict.fromkeys([*settings.sites, *(Site(side, EMBEDDING) for side in settings.sides)])
    return harvest(
        clip,
        pairs,
        tuple(sites),
        folder.activations,
        token=settings.token,
        dtype=settings.cache_dtype,
        batch_size=settings.forward_batch,
        autocast=settings.autocast,
        compile=settings.compile,
        workers=settings.workers,
        quarantine=Quarantine(folder.quarantine if group.rank == 0 else None, max_bad=settings.max_bad),
    )
