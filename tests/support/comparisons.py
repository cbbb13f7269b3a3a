"""Comparisons made without a model: dictionaries with a basis and figures alone."""

from collections.abc import Mapping, Sequence

import numpy as np

from cliplens_plugins.comparison.compare import Comparison, assemble
from cliplens_plugins.comparison.figures import FIGURES, Value
from cliplens_plugins.comparison.subjects import Subject

BASIS = ("pairs", "model", "hook", "token", "centring", "judge", "namer", "vocabulary")


def subject(name: str = "x", **basis: str) -> Subject:
    """Return a dictionary that was measured on a basis; parts that are not given are the same for all."""
    made = object.__new__(Subject)
    made.__dict__.update(name=name, given=None, summary={}, basis=dict.fromkeys(BASIS, "same") | basis)
    return made


def comparison(
    levels: Mapping[str, float], *, seeds: int = 3, bases: Mapping[str, dict[str, str]] | None = None
) -> Comparison:
    """Return a comparison of configurations whose figures all are about a level, with little noise."""
    rng = np.random.default_rng(0)
    groups: dict[str, Sequence[Subject]] = {}
    single: dict[str, dict[str, Value]] = {}
    for name, level in levels.items():
        groups[name] = [subject(f"{name}-s{n}", **(bases or {}).get(name, {})) for n in range(seeds)]
        for one in groups[name]:
            single[one.name] = {f.name: _value(level, rng) for f in FIGURES}
    return assemble(groups, single, pictures=50)


def _value(level: float, rng: np.random.Generator) -> Value:
    value = level + 0.01 * rng.normal()
    return Value(float(value), value + 0.01 * np.random.default_rng(1).normal(size=50), 0.1)
