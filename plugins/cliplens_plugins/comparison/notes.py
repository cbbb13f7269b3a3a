"""Say what a comparison can tell: which dictionaries are one row, what is not comparable, where seeds are missing."""

from collections.abc import Iterator, Mapping, Sequence

from cliplens_plugins.comparison.figures import Figure
from cliplens_plugins.comparison.noise import Noise
from cliplens_plugins.comparison.subjects import Subject

_NAMED = 4
"""Configurations whose dictionaries are listed."""
_FEW = 4
"""Degrees of freedom below which the noise over seeds is poorly known."""


def notes_of(
    groups: Mapping[str, Sequence[Subject]], figures: Sequence[Figure], noise: Mapping[str, Noise]
) -> list[str]:
    """Return the notes on a comparison.

    Args:
        groups: the dictionaries of each configuration.
        figures: the figures that were measured.
        noise: the noise of each figure over seeds.
    """
    notes = [*_merged(groups), *_not_comparable(groups, figures)]
    if len(groups) > 1:
        notes += _seeds(groups, figures, noise)
    given = [s.name for members in groups.values() for s in members if s.given is not None]
    if given:
        notes.append(f"Whether {', '.join(given)} saw these pairs in training is not known.")
    return notes


def _merged(groups: Mapping[str, Sequence[Subject]]) -> Iterator[str]:
    """Say which dictionaries are shown as one row."""
    several = {name: [s.name for s in members] for name, members in groups.items() if len(members) > 1}
    if several:
        listed = [f"{name} is the mean of {', '.join(of)}" for name, of in list(several.items())[:_NAMED]]
        more = f"; and {len(several) - _NAMED} more" if len(several) > _NAMED else ""
        yield (
            f"Dictionaries that differ by their seed only are one row: {'; '.join(listed)}{more}. compare.csv has a "
            "row for each dictionary."
        )
    if len(groups) == 1:
        yield "There is one configuration, so there is no difference to test."


def _not_comparable(groups: Mapping[str, Sequence[Subject]], figures: Sequence[Figure]) -> Iterator[str]:
    leads = [members[0] for members in groups.values()]
    for figure in figures:
        parts = [p for p in figure.needs if len({s.basis[p] for s in leads}) > 1]
        if parts:
            yield (
                f"{figure.title}: not every pair is comparable, because {' and '.join(parts)} differ"
                f"{'s' if len(parts) == 1 else ''} between configurations."
            )


def _seeds(
    groups: Mapping[str, Sequence[Subject]], figures: Sequence[Figure], noise: Mapping[str, Noise]
) -> Iterator[str]:
    """Say for which figures the noise over seeds is not known, or poorly."""
    most = max(map(len, groups.values()))
    unknown = [f for f in figures if not noise[f.name].freedom]
    alone = [f.title for f in unknown if most < 2 or f.name != "stability"]
    if alone:
        yield (
            f"No seeds: {', '.join(alone)}. Whether a difference is larger than between two seeds is not known, so "
            "none is called different. Train each configuration from several seeds (cliplens sweep --seed 0,1,2,3,4)."
        )
    if most > 1 and any(f.name == "stability" for f in unknown):
        yield "Stability compares two seeds, so two give one value. Its noise, and a test of a difference, need three."
    few = [f.title for f in figures if 0 < noise[f.name].freedom < _FEW]
    if few:
        yield (
            f"Few seeds: {', '.join(few)}. The noise over seeds has fewer than four degrees of freedom, so only very "
            "large differences are called different."
        )
