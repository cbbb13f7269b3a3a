"""Detect degenerate input: too few pairs, constant activations, or a dictionary that explains nothing."""

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt64

from cliplens.errors import InputError
from cliplens.run.dictionary import by_modality, rows_to_train, scored_on, trained_on, width_note
from cliplens.run.sparsity import sparsity_warning
from cliplens.sae import Dictionary
from cliplens.settings import Settings
from cliplens.sites import MODALITIES, Modality
from cliplens.store import Cache

FEWEST = 4
"""Minimum number of pairs to train on, and to score on."""
_MOSTLY_DEAD = 0.5
_BATCHES = 16
_CONSTANT = 1e-6
_FEW = 50
"""Number of scored pairs below which shares and scores of single latents are unreliable."""
_WHAT = {"image": ("images", "image"), "text": ("captions", "text")}


def check_enough(keys: UInt64[np.ndarray, " pair"], settings: Settings) -> None:
    """Check that there are pairs to train on and pairs to score on.

    Args:
        keys: key of each pair, which decides whether it is held out.
        settings: settings of the run.

    Raises:
        InputError: there are fewer than four of either.
    """
    scored = int(scored_on(settings)(keys).sum())
    trained = int(trained_on(settings)(keys).sum())
    enough = scored >= FEWEST and (settings.sae is not None or trained >= FEWEST)
    if enough:
        return
    kept = "" if settings.sae is not None else f"at least {FEWEST} pairs to train on and "
    found = "" if settings.sae is not None else f"{trained} to train on and "
    raise InputError(
        expected=f"{kept}at least {FEWEST} pairs to score on (a share of {settings.held_out:g}, chosen by id)",
        found=f"{found}{scored} to score on, of {len(keys)} usable pairs",
        fix="pass more pairs, or another --held-out",
    )


def warnings_of_pairs(scored: int, captions: Sequence[str | None]) -> list[str]:
    """Return the warnings about the pairs themselves: few are scored, or all have the same caption.

    >>> len(warnings_of_pairs(6, ["a cat", "a dog"])), len(warnings_of_pairs(4096, ["a cat"] * 4096))
    (1, 1)
    """
    told = []
    if scored < _FEW:
        told.append(
            f"Warning: only {scored} pairs are scored, so classes, shares and names of single latents are unreliable. "
            "Use more pairs, or a larger --held-out."
        )
    if len(captions) > 1 and captions[0] and all(caption == captions[0] for caption in captions):
        told.append(
            f"Warning: all {len(captions)} captions are the same text, so names from captions, and all comparisons of "
            "captions, have no meaning."
        )
    return told


def warnings_of(cache: Cache, settings: Settings, figures: Mapping[str, Any], dictionary: Dictionary) -> list[str]:
    """Return warnings about figures that cannot be trusted.

    Args:
        cache: activations of the pairs.
        settings: settings of the run.
        figures: headline figures of the metrics.
        dictionary: the dictionary that was scored.
    """
    constant, d_sae = _constant(cache, settings), dictionary.d_sae
    told = []
    if len(constant) == len(settings.sites) > 1:
        told.append(
            "Warning: all pairs are alike: images and captions give constant activations, so nothing can be said of "
            "any latent."
        )
    else:
        told += [
            f"Warning: all {_WHAT[m][0]} give the same activations: the {_WHAT[m][1]} modality is constant after "
            "centring, so scores of modality (ImgD, TextD, CrossD) say nothing."
            for m in constant
        ]
    if figures.get("alive") == 0:
        told.append("Warning: no latent fires on any held-out pair, so there is nothing to score or to name.")
    alive = figures.get("alive")
    if isinstance(alive, int) and 0 < alive < (1 - _MOSTLY_DEAD) * d_sae:
        told.append(
            f"Warning: {d_sae - alive:,} of {d_sae:,} latents ({1 - alive / d_sae:.0%}) fire on none of the pairs "
            f"scored. {_why_dead(cache, settings, d_sae)}"
        )
    l0 = figures.get("l0")
    if alive and isinstance(l0, float) and (sparse := sparsity_warning(l0, dictionary, settings)) is not None:
        told.append(sparse)
    variance = figures.get("explained_variance")
    if isinstance(variance, float) and variance <= 0:
        told.append(
            f"Warning: the dictionary explains nothing of these activations (explained variance {variance:.3g}, worse "
            "than their mean): its latents, names and scores say nothing about this model."
        )
    return told


def _why_dead(cache: Cache, settings: Settings, d_sae: int) -> str:
    if settings.sae is not None:
        return "They may fire on other pairs: score more."
    too_wide = width_note(rows_to_train(cache, settings), d_sae)
    return too_wide or "The rows to train on suffice for so many: score more pairs, or train longer (--samples)."


def _constant(cache: Cache, settings: Settings) -> list[Modality]:
    """Return the modalities with constant activations in the first batches of the cache."""
    read = list(islice(cache.batches(**by_modality(settings.sites), batch_size=256), _BATCHES))
    found: list[Modality] = []
    for modality in MODALITIES:
        parts = [rows.double() for acts in read if (rows := acts.of(modality)) is not None]
        if not parts:
            continue
        rows = torch.cat(parts)
        spread = (rows - rows.mean(0)).square().sum(1).mean()
        if float(spread) <= _CONSTANT * float(rows.square().sum(1).mean()):
            found.append(modality)
    return found
