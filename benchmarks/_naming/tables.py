"""Print what was counted about names."""

from collections.abc import Iterable, Sequence

import numpy as np
from scipy.stats import binomtest

from _bench import Bench
from _naming.counts import BANDS, NAMERS, SOURCES, Counted, Named
from cliplens.naming import name_agreement

SAME = 0.7
"""Least cosine of decoder rows that count as the same latent of two dictionaries."""


def show(b: Bench, counted: Counted, kinds: Iterable[str]) -> None:
    """Print the table of each kind of values, and the tests of names."""
    for kind in kinds:
        title = f"Right names of latents for {kind} factors: right / all, 95 % interval (Wilson); unnamed"
        b.table(title, ["namer", "named from", *(says for _, _, says in BANDS), "all"])
        for namer in NAMERS:
            for source in SOURCES:
                cells = [counted.right.get((namer.name, source, kind, says), [0, 0, 0]) for _, _, says in BANDS]
                every = every_band(counted, namer.name, source, kind)
                b.row(namer.name, source, *(cell(*counts) for counts in (*cells, every)))
    heads = ("namer", "named from", "tested on", "test", "judge")
    b.table(
        "Tests on samples no name was made from (mean over seeds of the mean over latents)",
        {**dict.fromkeys(heads, ""), "score": ".3f", "shuffled names": ".3f"},
    )
    for key, scores in counted.tests.items():
        b.row(*key, *np.mean(scores, axis=0).tolist())


def every_band(counted: Counted, namer: str, source: str, kind: str) -> list[int]:
    """Return the counts (correct, unnamed, all) over all correlations."""
    cells = [counted.right.get((namer, source, kind, says), [0, 0, 0]) for _, _, says in BANDS]
    return [sum(counts) for counts in zip(*cells, strict=True)]


def share(part: int, of: int) -> str:
    """Return a share with its 95 % interval (Wilson).

    >>> share(30, 30), share(0, 0)
    ('1.000 (0.886 to 1.000)', '-')
    """
    if not of:
        return "-"
    limits = binomtest(part, of).proportion_ci(method="wilson")
    return f"{part / of:.3f} ({limits.low:.3f} to {limits.high:.3f})"


def cell(right: int, unnamed: int, of: int) -> str:
    """Return a cell of the tables of right names."""
    if not of:
        return "none"
    limits = binomtest(right, of).proportion_ci(method="wilson")
    return f"{right} / {of}, {limits.low:.2f} to {limits.high:.2f}; {unnamed}"


def same_latents(a: Named, b: Named) -> list[tuple[int, int]]:
    """Return the latents whose decoder rows are each other's nearest, with a cosine of at least `SAME`."""
    near = a.decoder @ b.decoder.T
    there, back = near.argmax(1), near.argmax(0)
    return [(k, int(j)) for k, j in enumerate(there) if back[j] == k and near[k, j] >= SAME]


def show_names(b: Bench, named: dict[str, list[Named]]) -> None:
    """Print agreement between seeds, shared names and cost."""
    columns = {"namer": "", "same latents, both named": "d", "same name": ".3f", "other latents": ".3f"}
    columns |= {"named": "d", "share their name": ".3f", "CPU ms per named latent": ".2f"}
    b.table(
        "Agreement between seeds (0 no word shared, 1 all words of the shorter name), shared names and cost", columns
    )
    for namer, runs in named.items():
        agree, apart = agreement(runs)
        texts = [[t for t in one.names if t] for one in runs]
        shared = sum(sum(of.count(t) > 1 for t in of) for of in texts)
        count = sum(map(len, texts))
        cost = 1e3 * sum(one.seconds for one in runs) / max(count, 1)
        means = [float(np.mean(x)) if x else float("nan") for x in (agree, apart)]
        b.row(namer, len(agree), *means, count, shared / max(count, 1), cost)


def agreement(runs: Sequence[Named]) -> tuple[list[float], list[float]]:
    """Return the agreement of names of the same latents in two dictionaries, and of other latents."""
    agree, apart = [], []
    for n, one in enumerate(runs):
        for other in runs[n + 1 :]:
            pairs = [p for p in same_latents(one, other) if one.names[p[0]] and other.names[p[1]]]
            agree += [name_agreement(one.names[i], other.names[j]) for i, j in pairs]
            turned = [j for _, j in pairs[1:] + pairs[:1]]
            apart += [name_agreement(one.names[i], other.names[j]) for (i, _), j in zip(pairs, turned, strict=True)]
    return agree, apart
