"""Compare methods against a planted bias on a run of the world, and recover the rate and modality of the bias.

    cliplens demo --out cliplens-demo
    python benchmarks/bias.py --run cliplens-demo

Plants a bias in 200 training images: the colour follows from the shape at rate .95. Prints per method the worst group
and the gap of a probe trained on these images, zero-shot worst group, skew, leakage by refitted probes and retrieval,
on 800 balanced images. A second table has the rates recovered from 600 pairs with a bias in images, in captions, in
both, in neither. One dictionary: the intervals do not cover others.
"""

from typing import Any

from _bench import Bench, Estimate, bench
from cliplens.run import OpenedRun
from cliplens.runfolder import RunFolder
from cliplens_plugins.bias.of_run import recovered, study_of_run
from cliplens_plugins.bias.options import BiasOptions

FIGURES = ("trained worst group", "trained gap", "zero-shot worst group", "NDKL")
LEAKAGE = ("leakage, linear", "leakage, MLP", "R@1", "unrelated zero-shot")
RATES = (0.3, 0.6, 0.9)


def main(b: Bench) -> None:
    """Print one table of methods and one of recovered rates."""
    opened = OpenedRun(RunFolder.open(b.args.run))
    found = study_of_run(opened, BiasOptions(controls=b.args.controls))
    b.table("Methods against the planted bias", ["method", "told", *FIGURES, *LEAKAGE])
    for row in found.data["methods"]:
        b.row(row["method"], row["information"], *(_estimate(row[f]) for f in (*FIGURES, *LEAKAGE)))
    b.table("Rate and modality recovered", ["planted in", "planted rate", "in images", "in captions", "found in"])
    for rate in RATES:
        for row in recovered(opened, rate=rate):
            b.row(*row.values())
    b.table(
        "Latents that carry the attribute", ["class", "latents", "among the top", "share of variance between groups"]
    )
    for row in found.tables["Latents that carry the attribute, by class"]:
        b.row(*row.values())


def _estimate(figure: Any) -> Any:
    return Estimate(*figure) if isinstance(figure, tuple | list) else figure


if __name__ == "__main__":
    with bench(__file__, __doc__, run="cliplens-demo", controls=3) as found:
        main(found)
