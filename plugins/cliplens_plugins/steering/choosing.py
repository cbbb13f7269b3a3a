"""Choose an edit for a run if the user gives none, as at the end of `cliplens demo`.

On the embedded world, the edit changes one value of an attribute into another, such as red into blue. On other runs, it
adds the latent with the best name.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from cliplens.api import WORLD_PREFIX
from cliplens.edits import Edit, add
from cliplens.errors import InputError, UnknownNameError
from cliplens.records import LatentTable
from cliplens.settings import Settings
from cliplens.sites import Modality
from cliplens_plugins.steering.parsing import Group, Level, parse_edits

PAIRS_OF_VALUES = (("colour", "red", "blue"), ("colour", "green", "red"), ("shape", "circle", "heart"))
"""Attributes of the world to try in order: attribute, value to start from, value to end at."""
STRENGTH = "2x"


@dataclass(frozen=True)
class Choice:
    """A chosen edit with its aim."""

    text: str
    """The edit as written on the command line."""
    edits: tuple[Edit, ...]
    aim: str
    """attribute=value where it is known, else the latent's name."""
    starts_from: Callable[[str], bool]
    """Function of a pair id: whether the edit can have an effect on the pair."""


@runtime_checkable
class Steerable(Protocol):
    """The parts of a run that `choose` needs."""

    @property
    def asked(self) -> Settings: ...
    @property
    def table(self) -> LatentTable: ...
    def group(self, words: str, modality: Modality) -> Group: ...
    def level(self, modality: Modality) -> Level: ...


def choose(run: Steerable, modality: Modality) -> Choice:
    """Return an edit that is likely to have a visible effect.

    Raises:
        InputError: no latent of the run fires.
    """
    if str(run.asked.pairs).startswith(WORLD_PREFIX):
        for attribute, own, target in PAIRS_OF_VALUES:
            found = _between(run, modality, attribute, own, target)
            if found is not None:
                return found
    return _by_name(run.table, run.level(modality))


def _between(run: Steerable, modality: Modality, attribute: str, own: str, target: str) -> Choice | None:
    from cliplens.world import FACTORS, ground_truth

    text = f"{own}->{target}=+{STRENGTH}"
    try:
        edits = parse_edits(text, lambda words: run.group(words, modality))
    except UnknownNameError:
        return None
    start = FACTORS[attribute].values.index(own)
    return Choice(
        text,
        tuple(edits),
        f"{attribute}={target}",
        lambda pair_id: int(ground_truth([pair_id]).factors[attribute][0]) == start,
    )


def _by_name(table: LatentTable, level: Level) -> Choice:
    names = table["name"] if "name" in table else np.full(len(table), None, dtype=object)
    scored = "name_score" in table
    scores = np.nan_to_num(np.asarray(table["name_score"], dtype=float)) if scored else np.zeros(len(table))
    firing = [k for k in range(len(table)) if level(k) is not None]
    if not firing:
        raise InputError(
            expected="a run with a latent that fires, where no edit is given",
            found="none",
            fix="pass --edit, for example --edit '17=+4'",
        )
    best = max(firing, key=lambda k: (bool(names[k]) and names[k] != "unnamed", scores[k], -k))
    strength = 2 * (level(best) or 1.0)
    return Choice(
        f"{best}=+{strength:g}", (add([best], strength),), str(names[best] or f"latent {best}"), lambda _: True
    )
