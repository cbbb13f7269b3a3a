"""Where latents fire in their exemplars, packed for the page: one character per patch or token."""

import json
from collections.abc import Mapping
from typing import Any

from cliplens.records import Exemplars, PositionActivations, Positions
from cliplens.sites import MODALITIES, Modality

LEVELS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_"
"""Activation as a share of the latent's largest, in 63 steps."""
MOST_CHARACTERS = 6_000_000
"""Beyond so many characters weaker samples go without: every latent's strongest come before any latent's second."""


def packed_heat(
    positions: Positions, exemplars: Mapping[Modality, Exemplars], place: Mapping[str, int], latents: int
) -> dict[str, Any]:
    """Per modality: `largest` activation of each latent, `levels` of its samples by rank, and what they lie on: the
    `grid` of patches, or the `spans` of tokens (start, end, start, end, ...) by the pair's place in the page."""
    found: dict[str, Any] = {}
    for modality in MODALITIES:
        here = {(k, rank): heat for (m, k, rank), heat in positions.items() if m == modality}
        shown = exemplars.get(modality)
        if not here or shown is None:
            continue
        largest = [0.0] * latents
        for (k, _), heat in here.items():
            largest[k] = max(largest[k], float(heat.values.max(initial=0.0)))
        levels: list[list[str | None]] = [[] for _ in range(latents)]
        spans: dict[int, list[int]] = {}
        spent = 0
        for k, rank in sorted(here, key=lambda key: (key[1], key[0])):
            heat = here[k, rank]
            spent += len(heat.values)
            if spent > MOST_CHARACTERS:
                break
            levels[k] += [None] * (rank + 1 - len(levels[k]))
            levels[k][rank] = _level(heat, largest[k])
            if heat.grid is None:
                spans[place[shown.pairs[shown.at[k, rank]].id]] = [end for span in heat.spans for end in span]
        grid = next(iter(here.values())).grid
        found[modality] = {
            "largest": [float(f"{v:.4g}") for v in largest],
            "levels": levels,
            **({"grid": grid} if grid else {"spans": spans}),
        }
    return found


def _level(heat: PositionActivations, largest: float) -> str:
    """ "" where the latent fires nowhere on it."""
    if largest <= 0 or heat.values.max(initial=0.0) <= 0:
        return ""
    steps = (heat.values.clip(0) / largest * (len(LEVELS) - 1)).round().astype(int)
    return "".join(LEVELS[step] for step in steps)


def fit_of(preprocess: str) -> str:
    """What the model's preprocess leaves of a picture that is not square: "crop", "squash" or "pad"."""
    try:
        mode = json.loads(preprocess).get("resize_mode")
    except (ValueError, AttributeError):
        return "crop" if "CenterCrop" in preprocess else "squash"
    return {"shortest": "crop", "longest": "pad"}.get(mode, "squash")
