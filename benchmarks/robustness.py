"""Attack a run of the world: PGD by loss and class of latents, detectors, clean-up, adaptive attacks, words.

    cliplens demo --out cliplens-demo
    python benchmarks/robustness.py --run cliplens-demo

Prints every table of `cliplens attack`: accuracy, retrieval and target success by attack and eps; which class of
latents moves, in the run's dictionary, in one that was never trained and in one from another seed; detectors on
pictures they were not fitted on; clean-up and attacks through it; signs of a masked gradient. One model, one
dictionary: intervals are over pictures. A twin from another seed to transfer to: `python -m
cliplens_hooks.training.world clip --out twin --seed 1`, then `--transfer local-dir:twin`.
"""

import time

from _bench import Bench, bench
from cliplens.run import OpenedRun
from cliplens.runfolder import RunFolder
from cliplens_plugins.robustness.lab import Asked
from cliplens_plugins.robustness.of_run import study_of_run
from cliplens_plugins.robustness.options import levels_in


def main(b: Bench) -> None:
    """Print the tables of the study, and what it costs."""
    started = time.process_time()
    eps = levels_in(b.args.eps)
    asked = Asked(images=b.args.images or None, eps=eps, transfer=b.args.transfer, seed=b.args.seed)
    study = study_of_run(OpenedRun(RunFolder.open(b.args.run)), asked)
    for title, rows in study.tables.items():
        b.table(title, dict.fromkeys(rows[0], ".3f"))
        for row in rows:
            b.row(*(str(cell) if isinstance(cell, bool) else cell for cell in row.values()))
    for number, finding in enumerate(study.findings, 1):
        b.note(f"finding {number}", finding)
    b.note("pictures", study.settings["images"])
    b.note("CPU seconds of the study", round(time.process_time() - started, 1))


if __name__ == "__main__":
    options = {"eps": "1,2,4,8", "images": (0, "pictures; 0 takes the default"), "seed": 0}
    with bench(__file__, __doc__, run="cliplens-demo", transfer=None, **options) as found:
        main(found)
