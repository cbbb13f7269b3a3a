"""Compare dictionaries: figures of each configuration with intervals and controls, and which differences are real."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.stats import t as student

from cliplens.analysis import matched, mixtures
from cliplens.progress import Bar
from cliplens.statistics import mean_interval
from cliplens_plugins.comparison.figures import FIGURES, NAN, Figure, Value, measure
from cliplens_plugins.comparison.noise import (
    Noise,
    Verdict,
    decide,
    interval,
    pooled,
    pseudo_values,
    reseed_bound,
    sampling_bound,
)
from cliplens_plugins.comparison.notes import notes_of
from cliplens_plugins.comparison.sample import Samples
from cliplens_plugins.comparison.subjects import Subject, configurations

PAIRS, REPLICATES = 2048, 200
_TESTED = 4096
"""Largest number of latents that are matched for stability; matching takes time cubic in it."""
_SEEDS_OF_RUN = 3
"""Dictionaries that `cliplens run --controls` trains from other seeds."""


@dataclass(frozen=True)
class Measured:
    """A figure of one configuration: the mean over its dictionaries."""

    value: float
    low: float
    high: float
    """95 % interval over pictures (over latents for names), the seeds held fixed; nan where there is none."""
    control: float
    of_seeds: tuple[float, ...]
    deviation: float
    """Standard deviation of the mean over other samples; 0 where the figure has none."""
    replicates: np.ndarray | None = field(default=None, repr=False)
    group: str = ""
    """The basis of the figure. Two values are comparable if it is equal."""
    floor: float = 0.0


@dataclass(frozen=True)
class Difference:
    """The difference of a figure between two configurations, and what it is worth."""

    first: str
    second: str
    figure: str
    difference: float
    low: float
    high: float
    """95 % interval of the difference over pictures, paired; nan where there is none."""
    reseed_bound: float
    verdict: Verdict
    why: str = ""
    """Which parts of the basis differ, where the two are not comparable."""


@dataclass(frozen=True)
class Comparison:
    """Everything the page shows."""

    configurations: Mapping[str, Sequence[Subject]]
    measured: Mapping[str, Mapping[str, Measured]]
    """By configuration and figure; a figure that was not measured is missing."""
    single: Mapping[str, Mapping[str, Value]]
    """By dictionary and figure."""
    differences: Sequence[Difference]
    noise: Mapping[str, Noise]
    """Pooled over all configurations, by figure."""
    figures: Sequence[Figure]
    """The figures that at least one dictionary has."""
    notes: Sequence[str]
    pictures: int


def compare(subjects: Sequence[Subject], *, pairs: int = PAIRS, replicates: int = REPLICATES) -> Comparison:
    """Measure all dictionaries on pairs that none was trained on, and compare their configurations.

    Args:
        subjects: the dictionaries; those that differ by their seed only are one configuration.
        pairs: number of pictures, at most.
        replicates: number of bootstrap samples of pictures.

    Raises:
        InputError: no picture is held out by all dictionaries.
        MismatchError: a dictionary does not fit its activations.
    """
    samples = Samples(subjects, pairs, replicates)
    single = {}
    for subject in Bar(subjects, desc="measuring", unit="dictionary", file=sys.stderr):
        single[subject.name] = measure(subject, samples.of(subject))
    groups = configurations(subjects)
    for members in groups.values():
        _add_stability(members, single)
    return assemble(groups, single, pictures=max(samples.of(s).pictures for s in subjects))


def assemble(
    groups: Mapping[str, Sequence[Subject]], single: Mapping[str, Mapping[str, Value]], *, pictures: int
) -> Comparison:
    """Return the comparison of configurations from the figures of their dictionaries."""
    figures = [f for f in FIGURES if any(f.name in held for held in single.values())]
    measured = {
        name: {f.name: _mean(f, members, single) for f in figures if all(f.name in single[s.name] for s in members)}
        for name, members in groups.items()
    }
    every = {f.name: _seeds_by_group(f, measured) for f in figures}
    tested = sum(any(len(m) > 1 for m in (list(seeds) for seeds in every[f.name].values())) for f in figures)
    runs_with_seeds = {f.name: _noise_of_controls(f.name, groups) for f in figures}
    differences = [
        _difference(f, (a, groups[a]), (b, groups[b]), measured, every[f.name], runs_with_seeds[f.name], max(tested, 1))
        for a, b in combinations(groups, 2)
        for f in figures
    ]
    noise = {f.name: pooled([s for seeds in every[f.name].values() for s in seeds]) for f in figures}
    noise = {name: found if found.freedom else runs_with_seeds[name] for name, found in noise.items()}
    return Comparison(groups, measured, single, differences, noise, figures, notes_of(groups, figures, noise), pictures)


def _mean(figure: Figure, members: Sequence[Subject], single: Mapping[str, Mapping[str, Value]]) -> Measured:
    values = [single[s.name][figure.name] for s in members]
    each = tuple(v.value for v in values)
    value = float(np.mean(each))
    group = repr([members[0].basis[part] for part in figure.needs])
    controls = [v.control for v in values if not np.isnan(v.control)]
    control = float(np.mean(controls)) if controls else NAN
    floor = float(np.mean([v.floor for v in values]))
    if values[0].replicates is not None:
        drawn = np.mean([v.replicates for v in values if v.replicates is not None], axis=0)
        low, high = interval(value, drawn, figure.bounds)
        return Measured(value, low, high, control, each, _deviation(drawn), drawn, group, floor)
    if values[0].units is not None:
        units = np.concatenate([v.units for v in values if v.units is not None])
        _, low, high = mean_interval(units)
        return Measured(value, low, high, control, each, float(units.std(ddof=1) / len(units) ** 0.5), None, group)
    return Measured(value, NAN, NAN, control, each, 0.0, None, group)


def _deviation(drawn: Float[np.ndarray, " replicate"]) -> float:
    """Return the standard deviation of the replicates that have a value; nan with fewer than two."""
    return float(np.nanstd(drawn, ddof=1)) if np.isfinite(drawn).sum() > 1 else NAN


def _seeds_by_group(figure: Figure, measured: Mapping[str, Mapping[str, Measured]]) -> dict[str, list[Sequence[float]]]:
    """Return the figure of each seed of every configuration, by basis: noise is pooled among comparable ones."""
    found: dict[str, list[Sequence[float]]] = {}
    for held in measured.values():
        if figure.name in held:
            found.setdefault(held[figure.name].group, []).append(_independent(figure, held[figure.name]))
    return found


def _difference(
    figure: Figure,
    first: tuple[str, Sequence[Subject]],
    second: tuple[str, Sequence[Subject]],
    measured: Mapping[str, Mapping[str, Measured]],
    seeds: Mapping[str, Sequence[Sequence[float]]],
    spare: Noise,
    tested: int,
) -> Difference:
    a, b = (measured[name].get(figure.name) for name, _ in (first, second))
    nothing = (first[0], second[0], figure.name, NAN, NAN, NAN, NAN)
    if a is None or b is None:
        return Difference(*nothing, "not measured")
    other = differing(figure, first[1][0], second[1][0])
    if other:
        return Difference(*nothing, "not comparable", f"other {' and '.join(other)}")
    own, every = pooled([_independent(figure, x) for x in (a, b)]), pooled(seeds[a.group])
    counts, floor = (len(a.of_seeds), len(b.of_seeds)), max(a.floor, b.floor)
    bound = reseed_bound(own, every if every.freedom else spare, *counts, floor=floor, figures=tested)
    difference = a.value - b.value
    if a.replicates is not None and b.replicates is not None:
        drawn = a.replicates - b.replicates
        most = figure.bounds[1] - figure.bounds[0]
        low, high = interval(difference, drawn, (-most, most))
        deviation = _deviation(drawn)
    else:
        deviation = float(np.hypot(a.deviation, b.deviation))
        low, high = (difference - 1.96 * deviation, difference + 1.96 * deviation) if deviation else (NAN, NAN)
    verdict = decide(difference, bound, sampling_bound(deviation, tested))
    return Difference(first[0], second[0], figure.name, difference, low, high, bound, verdict)


def _independent(figure: Figure, held: Measured) -> Sequence[float]:
    """Return the values of the seeds as if each had been measured alone."""
    return pseudo_values(held.of_seeds) if figure.name == "stability" else held.of_seeds


def differing(figure: Figure, first: Subject, second: Subject) -> list[str]:
    """Return the parts of the basis of a figure in which two dictionaries differ; none if it is comparable."""
    return [part for part in figure.needs if first.basis[part] != second.basis[part]]


def _add_stability(members: Sequence[Subject], single: dict[str, dict[str, Value]]) -> None:
    """Add the mean cosine of each dictionary's latents with their partners in every other seed."""
    decoders = {s.name: s.dictionary.decoder for s in members}
    if len(members) < 2 or any(len(d) > _TESTED for d in decoders.values()):
        return
    alike: dict[str, list[float]] = {s.name: [] for s in members}
    for a, b in combinations(members, 2):
        mean = float(np.nanmean(matched(decoders[a.name], decoders[b.name]).cosine))
        alike[a.name].append(mean)
        alike[b.name].append(mean)
    first, second = members[:2]
    chance = float(np.nanmean(matched(mixtures(decoders[first.name]), decoders[second.name]).cosine))
    for subject in members:
        single[subject.name]["stability"] = Value(float(np.mean(alike[subject.name])), None, chance)


def _noise_of_controls(figure: str, groups: Mapping[str, Sequence[Subject]]) -> Noise:
    """Return the noise over the three seeds that `cliplens run --controls` trains, where configurations have one seed.

    The run keeps the prediction interval for one more seed, from which the standard deviation follows.
    """
    found = []
    for members in groups.values():
        for subject in members:
            row = (subject.summary.get("controls") or {}).get(figure, {}).get("reseeds")
            if row and row.get("low") is not None and row.get("high") is not None:
                n = _SEEDS_OF_RUN
                half = float(student.ppf(0.975, n - 1)) * (1 + 1 / n) ** 0.5
                found.append((row["high"] - row["low"]) / 2 / half)
    if not found:
        return Noise(NAN, 0)
    return Noise(float(np.sqrt(np.mean(np.square(found)))), len(found) * (_SEEDS_OF_RUN - 1))


def rows_of(found: Comparison) -> list[dict[str, Any]]:
    """Return one plain row per dictionary, for CSV and JSON."""
    rows = []
    for name, members in found.configurations.items():
        for subject in members:
            row: dict[str, Any] = {"dictionary": subject.name, "configuration": name, "seed": subject.seed}
            row |= {f"basis_{part}": value for part, value in subject.basis.items()}
            for figure in found.figures:
                value = found.single[subject.name].get(figure.name)
                low, high = NAN, NAN
                if value is not None and value.replicates is not None:
                    low, high = interval(value.value, value.replicates, figure.bounds)
                row[figure.name] = NAN if value is None else value.value
                row |= {f"{figure.name}_low": low, f"{figure.name}_high": high}
                row[f"{figure.name}_control"] = NAN if value is None else value.control
            rows.append(row)
    return rows
