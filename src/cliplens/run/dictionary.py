"""Train the dictionary of a run, and split the pairs into those to train on and those to score."""

import sys
from collections.abc import Callable, Sequence
from typing import Any, TypedDict

import numpy as np
from jaxtyping import Bool, UInt64

from cliplens import keys
from cliplens.api import pick_device
from cliplens.errors import InputError, UnknownNameError
from cliplens.progress import Bar
from cliplens.run.memory import Memory
from cliplens.runfolder import RunFolder
from cliplens.sae import Dictionary, calibration_of, dictionary_config, needs_pairs, train
from cliplens.settings import Settings
from cliplens.sites import Site
from cliplens.store import Cache, Provider

Keep = Callable[[UInt64[np.ndarray, " row"]], Bool[np.ndarray, " row"]]
MIN_STEPS = 400
"""Minimum number of steps by default; after fewer steps, a dictionary has hardly left its random initial weights."""
PASSES = 20
ROWS_PER_LATENT = 20
"""Training rows per latent from which the defaults leave few latents dead."""
NARROWEST = 32
"""Narrowest dictionary that is advised. Rows for fewer latents are too few for a dictionary of any width."""


def trained_on(settings: Settings) -> Keep:
    """Return a function of pair keys that returns whether the dictionary is trained on each pair."""
    if settings.sae is not None:
        return lambda pair_keys: np.zeros(len(pair_keys), dtype=bool)
    return lambda pair_keys: ~keys.held_out(pair_keys, settings.held_out)


def scored_on(settings: Settings) -> Keep:
    """Return a function of pair keys that returns whether each pair is scored: if held out, or always with `--sae`."""
    return lambda pair_keys: ~trained_on(settings)(pair_keys)


class SitePair(TypedDict):
    """The site of each modality; None for a modality without one."""

    image: Site | None
    text: Site | None


def by_modality(sites: Sequence[Site]) -> SitePair:
    """Return the sites as keyword arguments for a cache."""
    found = {site.modality: site for site in sites}
    return {"image": found.get("image"), "text": found.get("text")}


def training_config(settings: Settings, d_in: int, rows: int | None = None) -> Any:
    """Return SAELens' training config for these settings at a hook of width `d_in`.

    Args:
        settings: settings of a run.
        d_in: width of the hook.
        rows: number of rows to train on, which bounds the default of `d_sae`; None does not bound it.

    Raises:
        InputError: the sizes do not fit together.
        UnknownNameError: the architecture is unknown.
    """
    penalty, d_sae = _penalty(settings), settings.d_sae
    if d_sae is None and rows is not None:
        d_sae = default_width(d_in, rows, settings.k)
    try:
        return dictionary_config(settings.architecture, d_in, d_sae, k=settings.k, **penalty)
    except UnknownNameError as error:
        if not any(repr(name) in error.found for name in penalty):
            raise
        raise InputError(
            expected="an architecture with a sparsity penalty (standard, gated, jumprelu, ...) for --sparsity",
            found=settings.architecture,
            fix="leave --sparsity out; --k sets how many latents fire",
        ) from error


def planned_samples(settings: Settings, rows: int) -> int:
    """Return the number of rows to train on, if one epoch has `rows` rows."""
    return settings.samples or max(MIN_STEPS * settings.batch_size, PASSES * rows)


def rows_to_train(cache: Cache, settings: Settings) -> int:
    """Return the number of rows that a run trains on; 0 if its dictionary is given."""
    blocks = list(cache.blocks(trained_on(settings), len(cache)))
    return sum(int(cache.counts(block, site).sum()) for block in blocks for site in settings.sites)


def default_width(d_in: int, rows: int, k: int | None = None) -> int:
    """Return the number of latents of a dictionary whose width is not given: 4 x `d_in`, or fewer on few rows.

    Fewer is what the rows carry, in steps of 32, but at least 32 and 4 x `k`.

    >>> default_width(d_in=96, rows=20_000), default_width(d_in=96, rows=5_000), default_width(d_in=96, rows=480)
    (384, 224, 32)
    """
    carried = rows // ROWS_PER_LATENT // NARROWEST * NARROWEST
    return min(4 * d_in, max(carried, NARROWEST, 4 * (k or 0)))


def width_note(rows: int, d_sae: int) -> str | None:
    """Return the advice on the width of a dictionary that is too wide for its training rows; None where it is not.

    Every advice about a width is this one, so that two cannot contradict each other.

    >>> width_note(rows=20_000, d_sae=1_000) is None
    True
    >>> width_note(rows=20_000, d_sae=4_096).split(". ")[1]
    'Use --d-sae 512, or at least 81,920 rows (of more pairs).'
    """
    carried = rows // ROWS_PER_LATENT
    if d_sae <= carried:
        return None
    need = f"at least {ROWS_PER_LATENT * max(d_sae, NARROWEST):,} rows (of more pairs)"
    if carried < NARROWEST:
        fix = f"These are too few for a dictionary of any width: use {need}."
    else:
        fix = f"Use --d-sae {1 << carried.bit_length() - 1}, or {need}."
    return (
        f"{rows:,} rows to train on carry about {carried:,} latents ({ROWS_PER_LATENT} rows each), so many of the "
        f"{d_sae:,} may never fire. {fix}"
    )


def training_rows(cache: Cache, settings: Settings, memory: Memory | None = None) -> Provider:
    """Return the batches a run trains its dictionary on. With a memory, runs on the same rows read them once."""

    def read() -> Provider:
        return Provider.from_cache(
            cache,
            **by_modality(settings.sites),
            keep=trained_on(settings),
            centre=settings.centre,
            batch_size=settings.batch_size,
            seed=settings.seed,
            paired=needs_pairs(settings.architecture),
        )

    if memory is None:
        return read()
    paired = needs_pairs(settings.architecture)
    same = ("rows", settings.sites, settings.held_out, settings.centre, settings.batch_size, paired)
    return memory.once(same, read).reseeded(settings.seed)


def train_again(rows: Provider, settings: Settings, *, frozen_decoder: bool = False) -> Dictionary:
    """Return a dictionary trained as a run trains its own, without checkpoints and without saving it."""
    return train(
        training_config(settings, rows.d_in, rows.rows),
        rows,
        samples=planned_samples(settings, rows.rows),
        batch_size=settings.batch_size,
        lr=settings.lr,
        seed=settings.seed,
        device=pick_device(settings.device),
        frozen_decoder=frozen_decoder,
    )


def train_run(
    cache: Cache, settings: Settings, folder: RunFolder, *, resume: bool, memory: Memory | None = None
) -> None:
    """Train the dictionary of a run and save it. With `resume`, continue from the newest checkpoint.

    The caller removes the checkpoints when the step is recorded.
    """
    provider = training_rows(cache, settings, memory)
    config = training_config(settings, provider.d_in, provider.rows)
    if settings.d_sae is None and config.d_sae < 4 * provider.d_in:
        Bar.write(
            f"train: {config.d_sae:,} latents, because there are {provider.rows:,} rows to train on; --d-sae sets "
            "another number",
            file=sys.stderr,
        )
    if (note := width_note(provider.rows, config.d_sae)) is not None:
        Bar.write(f"train: {note}", file=sys.stderr)
    made = train(
        config,
        provider,
        samples=planned_samples(settings, provider.rows),
        batch_size=settings.batch_size,
        lr=settings.lr,
        seed=settings.seed,
        device=pick_device(settings.device),
        checkpoint_folder=folder.checkpoints,
        keep_checkpoints=True,
        resume=resume,
        save_to=folder.sae,
        wandb_project=settings.wandb_project,
    )
    if (measured := calibration_of(made.sae.cfg.metadata)) is not None:
        Bar.write(f"train: {measured}", file=sys.stderr)


def _penalty(settings: Settings) -> dict[str, float]:
    """Return the sparsity coefficient under the architecture's name for it."""
    if settings.sparsity is None:
        return {}
    name = "l0_coefficient" if settings.architecture == "jumprelu" else "l1_coefficient"
    return {name: settings.sparsity}
