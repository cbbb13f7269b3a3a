"""Are dictionaries that differ by their seed only called different, and are those that differ more?

A sweep trains small dictionaries of the embedded world: every combination of architecture, width and k, each from
several seeds. Every pair of seeds of a configuration is compared by the two rules of `cliplens compare`; a few of the
other seeds of each configuration give the noise. No pair should be called different in any figure: the level is 5 %.
Pairs of a configuration share dictionaries, so the interval to read is the one over configurations. In the same way,
single dictionaries that do differ are compared: of neighbouring k, of the smallest and the largest k, of two
architectures.

Figures that need scored runs (names) or several seeds by definition (stability) are left out.
"""

import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stderr
from io import StringIO
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np

from _bench import Bench, Estimate, bench
from cliplens.run import Settings, SweepFolder, sweep
from cliplens.statistics import wilson_interval
from cliplens_plugins.comparison import Subject, open_subjects
from cliplens_plugins.comparison.figures import Value, measure
from cliplens_plugins.comparison.noise import decide, pooled, reseed_bound, sampling_bound
from cliplens_plugins.comparison.sample import Samples
from cliplens_plugins.comparison.subjects import configurations

SHOWN = ("l0", "explained_variance", "ms_image", "ms_text", "single_modality_share", "recovery")
Figures = Mapping[str, Value]
Configurations = Mapping[str, Sequence[Figures]]
"""The figures of each seed, by configuration."""
Pair = tuple[str, int, str, int]
"""Two dictionaries: configuration and seed of each."""


def measured(
    folder: Path, grid: Mapping[str, Sequence[object]], pairs: int, replicates: int
) -> tuple[Configurations, Mapping[str, Subject], int]:
    """Return the figures of dictionaries of a sweep, kept beside its folder, with one dictionary per configuration."""
    every = open_subjects([SweepFolder.open(folder).path])
    subjects = [s for s in every if all(getattr(s.asked, name) in values for name, values in grid.items())]
    samples = Samples(subjects, pairs, replicates)
    kept = folder.parent / f"figures-{pairs}-{replicates}"
    kept.mkdir(exist_ok=True)
    found = configurations(subjects)
    values = {name: [_of(subject, samples, kept) for subject in members] for name, members in found.items()}
    return values, {name: members[0] for name, members in found.items()}, samples.of(subjects[0]).pictures


def _of(subject: Subject, samples: Samples, kept: Path) -> Figures:
    path = kept / f"{Path(subject.name).name}.npz"
    if not path.exists():
        found = measure(subject, samples.of(subject))
        held = {n: np.concatenate([[v.value, v.floor], v.replicates]) for n, v in found.items() if n in SHOWN}  # type: ignore[list-item]
        np.savez(path, **held)
    with np.load(path) as held:
        return {n: Value(float(held[n][0]), held[n][2:], floor=float(held[n][1])) for n in held.files}


class Rules:
    """The two rules for single dictionaries; the noise is that of the first other seeds of each configuration."""

    def __init__(self, found: Configurations, reseeds: int, *, alone: bool = False) -> None:
        self._found, self._reseeds, self._alone = found, reseeds, alone

    def __call__(self, pair: Pair) -> list[str]:
        """Return the figures in which two dictionaries are called different."""
        first, i, second, j = pair
        a, b = self._found[first][i], self._found[second][j]
        shared = [f for f in SHOWN if f in a and f in b]
        return [f for f in shared if self._verdict(f, pair, a[f], b[f], len(shared)) == "different"]

    def _verdict(self, figure: str, pair: Pair, a: Value, b: Value, tested: int) -> str:
        first, i, second, j = pair
        own = pooled([self._seeds(name, figure, {i, j}) for name in sorted({first, second})])
        every = own if self._alone else pooled([self._seeds(name, figure, {i, j}) for name in self._found])
        bound = reseed_bound(own, every, 1, 1, floor=max(a.floor, b.floor), figures=tested)
        drawn = a.replicates - b.replicates  # type: ignore[operator]
        sampling = sampling_bound(float(np.nanstd(drawn, ddof=1)), tested)
        return str(decide(a.value - b.value, bound, sampling))

    def _seeds(self, name: str, figure: str, compared: set[int]) -> list[float]:
        others = [held for n, held in enumerate(self._found[name]) if n not in compared]
        return [held[figure].value for held in others[: self._reseeds]]


def of_one_configuration(found: Configurations) -> Iterator[list[Pair]]:
    """Yield, for each configuration, the pairs of dictionaries that differ by their seed only."""
    for name, members in found.items():
        yield [(name, i, name, j) for i, j in combinations(range(len(members)), 2)]


def of_two(found: Configurations, leads: Mapping[str, Subject], what: str) -> list[Pair]:
    """Return pairs of dictionaries of two configurations: of neighbouring k, of the outermost k, of architectures."""
    groups: dict[object, list[str]] = {}
    for name in found:
        asked = leads[name].asked
        same = (asked.d_sae, asked.k) if what == "architecture" else (asked.d_sae, asked.architecture)
        groups.setdefault(same, []).append(name)
    chosen: list[tuple[str, str]] = []
    for names in groups.values():
        ordered = sorted(names, key=lambda name: leads[name].asked.k or 0)
        chosen += [(ordered[0], ordered[-1])] if what == "outermost k" else pairwise(ordered)
    return [(a, i, b, i) for a, b in chosen for i in range(len(found[a]))]


def share(hits: int, n: int) -> Estimate:
    """Return a share with Wilson's interval."""
    low, high = wilson_interval(hits / n, n)
    return Estimate(hits / n, float(low), float(high))


def clustered(hits: Sequence[Sequence[bool]]) -> Estimate:
    """Return a share with its interval over configurations, which share their noise: bootstrap of configurations."""
    rng = np.random.default_rng(0)
    means = np.array([np.mean(h) for h in hits])
    drawn = means[rng.integers(0, len(means), (4000, len(means)))].mean(1)
    return Estimate(float(means.mean()), float(np.quantile(drawn, 0.025)), float(np.quantile(drawn, 0.975)))


def show_equal(b: Bench, found: Configurations) -> None:
    """Call pairs that differ by their seed only: in which figures, and with how many seeds for the noise."""
    rules = Rules(found, b.args.reseeds)
    hits = [[rules(pair) for pair in pairs] for pairs in of_one_configuration(found)]
    flat = [h for of in hits for h in of]
    b.note("pairs that differ by their seed only", len(flat))
    b.table("Pairs that differ by their seed only, called different", {"in": "", "pairs": "", "share": ".3f"})
    b.row("any figure", len(flat), share(sum(map(bool, flat)), len(flat)))
    b.row("any figure, interval over configurations", len(flat), clustered([[bool(h) for h in of] for of in hits]))
    for figure in SHOWN:
        b.row(figure, len(flat), share(sum(figure in h for h in flat), len(flat)))
    columns = {"seeds": "", "noise of": "", "pairs": "", "share": ".3f"}
    b.table("The same by the number of seeds that give the noise, interval over configurations", columns)
    for reseeds in (2, 3, 4, 7):
        for alone in (False, True):
            rules = Rules(found, reseeds, alone=alone)
            each = [[bool(rules(pair)) for pair in pairs] for pairs in of_one_configuration(found)]
            b.row(reseeds, "the configuration" if alone else "all configurations", len(flat), clustered(each))


def show_unequal(b: Bench, found: Configurations, leads: Mapping[str, Subject]) -> None:
    """Call pairs of single dictionaries that do differ."""
    rules = Rules(found, b.args.reseeds)
    columns = {"that differ in": "", "called different in": "", "pairs": "", "share": ".3f"}
    b.table("Pairs of single dictionaries that differ by more than their seed, called different", columns)
    for what in ("neighbouring k", "outermost k", "architecture"):
        hits = [rules(pair) for pair in of_two(found, leads, what)]
        if not hits:
            continue
        b.row(what, "any figure", len(hits), share(sum(map(bool, hits)), len(hits)))
        for figure in SHOWN:
            b.row(what, figure, len(hits), share(sum(figure in h for h in hits), len(hits)))


if __name__ == "__main__":
    options = {
        "architectures": ["topk", "batchtopk"],
        "widths": [32, 64],
        "ks": [2, 3, 4, 6, 8],
        "seeds": (9, "seeds of a configuration, of which every pair is compared"),
        "first": (0, "number of the first seed"),
        "reseeds": (4, "other seeds of each configuration that give the noise"),
        "world": (2048, "pairs of the embedded world"),
        "samples": 12_800,
        "batch_size": 256,
        "replicates": 50,
        "out": (None, "folder of the sweep and its figures, kept and resumed; by default a temporary one"),
    }
    with bench(__file__, __doc__, **options) as b, tempfile.TemporaryDirectory() as place:
        a = b.args
        settings = Settings(pairs=f"world:{a.world}", samples=a.samples, batch_size=a.batch_size)
        grid = {
            "architecture": a.architectures,
            "d_sae": a.widths,
            "k": a.ks,
            "seed": list(range(a.first, a.first + a.seeds)),
        }
        out = Path(a.out or place) / "seeds"
        print(f"training {np.prod([len(v) for v in grid.values()])} dictionaries", file=sys.stderr)
        with redirect_stderr(StringIO()):
            sweep(settings, grid, out, until="train", resume=out.exists())  # type: ignore[arg-type]
        found, leads, pictures = measured(out, grid, a.world, a.replicates)
        b.note("dictionaries", sum(map(len, found.values())))
        b.note("pictures", pictures)
        show_equal(b, found)
        show_unequal(b, found, leads)
