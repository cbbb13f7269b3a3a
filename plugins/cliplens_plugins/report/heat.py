"""Pack the activations within exemplars for the page, one character per patch or token."""

from collections.abc import Mapping
from typing import Any

from cliplens.records import Exemplars, PositionActivations, Positions
from cliplens.sites import MODALITIES, Modality

LEVELS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_"
"""Digits of an activation, as a share of the latent's largest, in 63 steps."""
MOST_CHARACTERS = 6_000_000
"""Maximum number of characters in the page. Every latent's strongest sample is packed before any latent's second."""


def packed_heat(
    positions: Positions, exemplars: Mapping[Modality, Exemplars], place: Mapping[str, int], latents: int
) -> dict[str, Any]:
    """Return, for each modality, the data with which the page shades samples.

    `largest` is the largest activation of each latent; `levels` are the packed activations of its samples, by rank.
    `grid` is the number of rows and columns of patches. `spans` holds the character offsets of the tokens (start, end,
    start, end, ...) by the pair's index in the page.
    """
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
    """Return the packed activations of a sample; "" where the latent fires at no position."""
    if largest <= 0 or heat.values.max(initial=0.0) <= 0:
        return ""
    steps = (heat.values.clip(0) / largest * (len(LEVELS) - 1)).round().astype(int)
    return "".join(LEVELS[step] for step in steps)
