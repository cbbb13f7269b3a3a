"""An edit to begin with, for a run whose user named none: `cliplens demo` ends with it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cliplens.api import WORLD_PREFIX
from cliplens.edits import Edit, add, replace
from cliplens.errors import InputError
from cliplens.records import Exemplars, GroundTruth, LatentTable

PURE = 0.9
"""Share of a latent's top samples that must show one value for the latent to count as saying it."""


@dataclass(frozen=True)
class Choice:
    """An edit with what it aims at."""

    edit: Edit
    aim: str
    """attribute=value where it is known, else the latent's name."""
    starts_from: Callable[[str], bool]
    """Whether the pair of this id is worth steering: it does not show the target already."""


def choose(table: LatentTable, exemplars: Exemplars, pairs: str, level: Callable[[int], float | None]) -> Choice:
    """The edit of the clearest latent; on the embedded world, against the latents of the attribute's other values.

    Raises:
        InputError: no latent fires on images or none has a name.
    """
    shared = [int(k) for k in np.flatnonzero(np.asarray(table["modality"], dtype=object) == "CrossD")]
    if pairs.startswith(WORLD_PREFIX) and shared:
        found = _by_truth(shared, exemplars, level)
        if found is not None:
            return found
    return _by_name(table, shared, level)


def _by_truth(latents: list[int], exemplars: Exemplars, level: Callable[[int], float | None]) -> Choice | None:
    from cliplens.world import SHARED, ground_truth

    truth = ground_truth([pair.id for pair in exemplars.pairs])
    says = {k: _value_said(k, exemplars, truth, SHARED) for k in latents}
    by_factor = {f: [(k, v, p) for k, s in says.items() if s is not None for g, v, p in [s] if g == f] for f in SHARED}
    factor, sayers = max(by_factor.items(), key=lambda item: len({v for _, v, _ in item[1]}))
    if len({v for _, v, _ in sayers}) < 2:
        return None
    target, value, _ = max(sayers, key=lambda entry: (entry[2], level(entry[0]) or 0.0, -entry[0]))
    own = [k for k, v, _ in sayers if v != value]
    said = {v for _, v, _ in sayers} - {value}

    def starts_from(pair_id: str) -> bool:
        return int(ground_truth([pair_id]).factors[factor][0]) in said

    aim = f"{factor}={truth.values[factor][value]}"
    return Choice(replace(own, [target], level(target) or 1.0), aim, starts_from)


def _value_said(
    latent: int, exemplars: Exemplars, truth: GroundTruth, factors: tuple[str, ...]
) -> tuple[str, int, float] | None:
    """(factor, value, clearness) of a latent whose top samples agree on one factor and on no other."""
    places = exemplars.at[latent][exemplars.at[latent] >= 0]
    if len(places) < 5:
        return None
    shares = {f: np.bincount(truth.factors[f][places]) / len(places) for f in factors}
    pure = [f for f in factors if shares[f].max() >= PURE]
    if len(pure) != 1:
        return None
    others = max(shares[f].max() for f in factors if f != pure[0])
    return pure[0], int(shares[pure[0]].argmax()), float(shares[pure[0]].max() - others)


def _by_name(table: LatentTable, shared: list[int], level: Callable[[int], float | None]) -> Choice:
    names = table["name"] if "name" in table else np.full(len(table), None, dtype=object)
    scores = (
        np.nan_to_num(np.asarray(table["name_score"], dtype=float)) if "name_score" in table else np.zeros(len(table))
    )
    named = [k for k in (shared or range(len(table))) if names[k] and level(k) is not None]
    if not named:
        raise InputError(
            expected="a run with a named latent to steer, where no edit is given",
            found="none",
            fix="give --edit, for example --edit '17=+4'",
        )
    best = max(named, key=lambda k: (scores[k], -k))
    return Choice(add([best], level(best) or 1.0), str(names[best]), lambda _: True)
