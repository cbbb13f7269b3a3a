"""The dictionary of a run: trained, found finished, or made elsewhere; and the split it was trained on."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np
from jaxtyping import Bool, UInt64

from cliplens import keys
from cliplens.api import pick_device
from cliplens.hooked import HookedCLIP
from cliplens.runfolder import RunFolder
from cliplens.sae import Dictionary, dictionary_config, needs_pairs, open_dictionary, train
from cliplens.settings import Settings
from cliplens.sites import Site
from cliplens.store import Cache, Embeddings, Provider

Keep = Callable[[UInt64[np.ndarray, " row"]], Bool[np.ndarray, " row"]]
MIN_STEPS = 400
"""BatchTopK's threshold is a slow average: below this many steps a saved dictionary fires far too much."""
PASSES = 20


def dictionary_of(
    clip: HookedCLIP | Embeddings, cache: Cache, settings: Settings, folder: RunFolder, *, resume: bool
) -> Dictionary:
    """The dictionary the settings ask for, trained into the run folder unless it is there or was made elsewhere."""
    if settings.sae is not None:
        dictionary = open_dictionary(Path(settings.sae), settings.layout)
        if not isinstance(clip, Embeddings):
            dictionary.check(clip, settings.sites)
        return dictionary
    if not (folder.sae / "cfg.json").exists():
        _train(cache, settings, folder, resume=resume)
    return Dictionary.load(folder.sae)


def trained_on(settings: Settings) -> Keep:
    """Which pairs the dictionary is trained on, by key."""
    if settings.sae is not None:
        return lambda pair_keys: np.zeros(len(pair_keys), dtype=bool)
    return lambda pair_keys: ~keys.held_out(pair_keys, settings.held_out)


def scored_on(settings: Settings) -> Keep:
    """Which pairs everything is scored on: those kept from training; all, for a dictionary made elsewhere."""
    return lambda pair_keys: ~trained_on(settings)(pair_keys)


class SitePair(TypedDict):
    """The site of each modality, None where there is none."""

    image: Site | None
    text: Site | None


def by_modality(sites: Sequence[Site]) -> SitePair:
    """The sites as the keyword arguments a cache takes."""
    found = {site.modality: site for site in sites}
    return {"image": found.get("image"), "text": found.get("text")}


def _train(cache: Cache, settings: Settings, folder: RunFolder, *, resume: bool) -> None:
    provider = Provider.from_cache(
        cache,
        **by_modality(settings.sites),
        keep=trained_on(settings),
        centre=settings.centre,
        batch_size=settings.batch_size,
        seed=settings.seed,
        paired=needs_pairs(settings.architecture),
    )
    config = dictionary_config(settings.architecture, provider.d_in, settings.d_sae, k=settings.k, **_penalty(settings))
    train(
        config,
        provider,
        samples=settings.samples or max(MIN_STEPS * settings.batch_size, PASSES * provider.rows),
        batch_size=settings.batch_size,
        lr=settings.lr,
        seed=settings.seed,
        device=pick_device(settings.device),
        checkpoint_folder=folder.path / "checkpoints",
        resume=resume,
        save_to=folder.sae,
        wandb_project=settings.wandb_project,
    )


def _penalty(settings: Settings) -> dict[str, float]:
    """The sparsity setting under the name the architecture has for it."""
    if settings.sparsity is None:
        return {}
    name = "l0_coefficient" if settings.architecture == "jumprelu" else "l1_coefficient"
    return {name: settings.sparsity}
