"""Are dictionaries that differ by their seed only called different? With --timed: how long does a sweep take?

A sweep trains small dictionaries of the embedded world: every combination of architecture, width and k, each from many
seeds. Of each configuration, the first seeds give the noise over seeds; every pair of the others is compared by the
two rules of `cliplens compare`. No pair should be called different in any figure: the level is 5 %. Pairs of a
configuration share its noise and their dictionaries, so the interval to read is the one over configurations. As the
opposite question, single dictionaries of neighbouring k are compared by the same rules.

Figures that need scored runs (names) or several seeds by definition (stability) are left out.
"""

import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
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
from cliplens_plugins.comparison.noise import Noise, decide, pooled, sampling_bound
from cliplens_plugins.comparison.sample import Samples
from cliplens_plugins.comparison.subjects import configurations

Measured = Mapping[str, Mapping[str, Value]]
SHOWN = ("l0", "explained_variance", "ms_image", "ms_text", "single_modality_share", "recovery")


def swept(
    settings: Settings, grid: Mapping[str, Sequence[object]], out: Path, until: str, *, resume: bool
) -> tuple[float, float]:
    """Run a sweep; return its seconds by the clock and its CPU seconds."""
    started = time.perf_counter(), time.process_time()
    with redirect_stderr(StringIO()):
        sweep(settings, grid, out, until=until, resume=resume)  # type: ignore[arg-type]
    return time.perf_counter() - started[0], time.process_time() - started[1]


def called(a: Mapping[str, Value], b: Mapping[str, Value], noise: Mapping[str, Noise], tested: int) -> dict[str, str]:
    """Return the verdict of each figure on two single dictionaries."""
    found = {}
    for name in SHOWN:
        if name not in a or name not in b:
            continue
        drawn = a[name].replicates - b[name].replicates  # type: ignore[operator]
        sampling = sampling_bound(float(np.nanstd(drawn, ddof=1)), tested)
        found[name] = decide(a[name].value - b[name].value, noise[name].bound(1, 1, tested), sampling)
    return found


def share(hits: int, n: int) -> Estimate:
    """Return a share with Wilson's interval."""
    low, high = wilson_interval(hits / n, n)
    return Estimate(hits / n, float(low), float(high))


def clustered(hits: Sequence[Sequence[bool]]) -> tuple[float, float]:
    """Return the interval of a share over configurations, which share their noise: bootstrap of configurations."""
    rng = np.random.default_rng(0)
    means = np.array([np.mean(h) for h in hits])
    drawn = means[rng.integers(0, len(means), (4000, len(means)))].mean(1)
    return float(np.quantile(drawn, 0.025)), float(np.quantile(drawn, 0.975))


def noise_of(members: Sequence[Subject], single: Measured) -> dict[str, Noise]:
    """Return the noise of each figure over seeds of one configuration."""
    return {n: pooled([[single[s.name][n].value for s in members]]) for n in SHOWN if n in single[members[0].name]}


def time_twelve(b: Bench, folder: Path) -> None:
    """Time a sweep of twelve dictionaries until the names, and its resumption."""
    grid = {"d_sae": [64, 128], "k": [4, 8], "seed": [0, 1, 2]}
    settings = Settings(pairs=f"world:{b.args.world}")
    columns = {"what": "", "seconds": ".0f", "CPU seconds": ".0f"}
    b.table("A sweep of twelve dictionaries of 64 and 128 latents until the names", columns)
    b.row("harvest, training, scores and names", *swept(settings, grid, folder, "name", resume=False))
    b.row("the same command with --resume", *swept(settings, grid, folder, "name", resume=True))


def compare_seeds(b: Bench, found: Mapping[str, Sequence[Subject]], single: Measured) -> None:
    """Call pairs that differ by their seed only, and pairs of neighbouring k."""
    a = b.args
    tested = sum(name in next(iter(single.values())) for name in SHOWN)
    hits: list[list[bool]] = []
    by_figure = dict.fromkeys(SHOWN, 0)
    for members in found.values():
        noise = noise_of(members[: a.reseeds], single)
        rest = members[a.reseeds :]
        hits.append([])
        for one, other in combinations(rest, 2):
            verdicts = called(single[one.name], single[other.name], noise, tested)
            hits[-1].append("different" in verdicts.values())
            for name, verdict in verdicts.items():
                by_figure[name] += verdict == "different"
    pairs = sum(map(len, hits))
    wrong = sum(map(sum, hits))
    low, high = clustered(hits)
    b.note("pairs that differ by their seed only", pairs)
    b.table("Pairs that differ by their seed only, called different", {"in": "", "pairs": "", "share": ".3f"})
    b.row("any figure", pairs, share(wrong, pairs))
    b.row("any figure, interval over configurations", pairs, Estimate(wrong / pairs, low, high))
    for name, count in by_figure.items():
        b.row(name, pairs, share(count, pairs))


def compare_ks(b: Bench, found: Mapping[str, Sequence[Subject]], single: Measured) -> None:
    """Call pairs of single dictionaries that differ in k."""
    tested = sum(name in next(iter(single.values())) for name in SHOWN)
    of: dict[tuple[object, object], list[Sequence[Subject]]] = {}
    for members in found.values():
        asked = members[0].asked
        of.setdefault((asked.architecture, asked.d_sae), []).append(members)
    counts = dict.fromkeys(("any figure", *SHOWN), 0)
    pairs = 0
    for groups in of.values():
        groups.sort(key=lambda members: members[0].asked.k or 0)
        for few, many in pairwise(groups):
            both = [noise_of(m[: b.args.reseeds], single) for m in (few, many)]
            noise = {n: _larger(both[0][n], both[1][n]) for n in both[0]}
            for one, other in zip(few[b.args.reseeds :], many[b.args.reseeds :], strict=True):
                verdicts = called(single[one.name], single[other.name], noise, tested)
                pairs += 1
                counts["any figure"] += "different" in verdicts.values()
                for name, verdict in verdicts.items():
                    counts[name] += verdict == "different"
    b.table("Single dictionaries of neighbouring k, called different", {"in": "", "pairs": "", "share": ".3f"})
    for name, count in counts.items():
        b.row(name, pairs, share(count, pairs))


def _larger(a: Noise, b: Noise) -> Noise:
    return a if a.deviation > b.deviation else b


if __name__ == "__main__":
    options = {
        "architectures": ["topk", "batchtopk"],
        "widths": [32, 64],
        "ks": [2, 3, 4, 6, 8],
        "reseeds": (4, "seeds of a configuration that give its noise"),
        "seeds": (5, "further seeds of a configuration, of which every pair is compared"),
        "world": (2048, "pairs of the embedded world"),
        "samples": 12_800,
        "batch_size": 256,
        "replicates": 100,
        "out": (None, "folder of the sweeps, kept and resumed; by default a temporary one"),
        "timed": (False, "also time a sweep of twelve dictionaries, and its resumption"),
    }
    with bench(__file__, __doc__, **options) as b, tempfile.TemporaryDirectory() as place:
        a = b.args
        settings = Settings(pairs=f"world:{a.world}", samples=a.samples, batch_size=a.batch_size)
        grid = {
            "architecture": a.architectures,
            "d_sae": a.widths,
            "k": a.ks,
            "seed": list(range(a.reseeds + a.seeds)),
        }
        home = Path(a.out or place)
        out = home / "seeds"
        print(
            f"training {len(a.architectures) * len(a.widths) * len(a.ks) * (a.reseeds + a.seeds)} dictionaries",
            file=sys.stderr,
        )
        swept(settings, grid, out, "train", resume=out.exists())
        subjects = open_subjects([SweepFolder.open(out).path])
        samples = Samples(subjects, a.world, a.replicates)
        single = {s.name: measure(s, samples.of(s)) for s in subjects}
        b.note("dictionaries", len(subjects))
        b.note("pictures", samples.of(subjects[0]).pictures)
        found = configurations(subjects)
        compare_seeds(b, found, single)
        compare_ks(b, found, single)
        if a.timed:
            time_twelve(b, home / "twelve")
