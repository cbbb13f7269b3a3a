"""Measure and reduce a bias on real drawings: professions drawn as man, woman and person by three artists.

    cliplens run --model emoji --pairs emoji:all --d-sae 512 --k 12 --out runs/emoji
    CLIPLENS_DATA=FOLDER python benchmarks/bias_drawings.py --run runs/emoji

Gender is the group and profession the target. The tables are those of `cliplens bias RUN --data emoji:all`. One model
and one dictionary, which were trained on drawings of these artists: the intervals cover drawings, not models.
"""

from typing import Any

from _bench import Bench, Estimate, bench
from cliplens.run import OpenedRun
from cliplens.runfolder import RunFolder
from cliplens_plugins.bias.of_run import study_of_run
from cliplens_plugins.bias.options import BiasOptions

FIGURES = ("trained worst group", "trained gap", "zero-shot worst group", "leakage, linear", "leakage, MLP", "R@1")


def main(b: Bench) -> None:
    """Print a row per method, and the study's own tables."""
    opened = OpenedRun(RunFolder.open(b.args.run))
    asked = BiasOptions(data="emoji:all", group="gender", target="profession", controls=b.args.controls)
    found = study_of_run(opened, asked)
    b.table("Methods on drawings of professions, by gender", ["method", "told", *FIGURES])
    for row in found.data["methods"]:
        b.row(row["method"], row["information"], *(_estimate(row.get(figure)) for figure in FIGURES))
    title = "Latents that carry the attribute, by class"
    rows = found.tables.get(title, [])
    if rows:
        b.table(title, list(rows[0]))
        for row in rows:
            b.row(*row.values())
    b.keep("findings", list(found.findings))
    b.keep("notes", list(found.notes))


def _estimate(figure: Any) -> Any:
    return Estimate(*figure) if isinstance(figure, tuple | list) else figure


if __name__ == "__main__":
    with bench(__file__, __doc__, run="runs/emoji", controls=3) as bench_of_drawings:
        main(bench_of_drawings)
