"""Attack a run of the world: PGD by loss and class of latents, detectors, clean-up, adaptive attacks, words.

    cliplens demo --out cliplens-demo
    python benchmarks/robustness.py --run cliplens-demo

    cliplens attack cliplens-demo --images 24 --eps 2,8
    python benchmarks/robustness.py --run cliplens-demo --record

Prints every table of `cliplens attack`: accuracy, retrieval and target success by attack and eps; which class of
latents moves, in the run's dictionary, in one that was never trained and in one from another seed; detectors on
pictures they were not fitted on; clean-up and attacks through it; signs of a masked gradient. With `--record` the
tables are those that the command left in the run folder. One model, one dictionary: intervals are over pictures. A
twin from another seed to transfer to: `python -m cliplens_hooks.training.world clip --out twin --seed 1`, then
`--transfer local-dir:twin`.
"""

import time

from _bench import Bench, bench
from cliplens.errors import InputError
from cliplens.run import OpenedRun
from cliplens.runfolder import RunFolder
from cliplens.studies import Study, read_studies
from cliplens_plugins.robustness.lab import AttackOptions
from cliplens_plugins.robustness.of_run import study_of_run
from cliplens_plugins.robustness.options import levels_in


def main(b: Bench) -> None:
    """Print the tables of the study."""
    started = time.process_time()
    folder = RunFolder.open(b.args.run)
    study = recorded(folder) if b.args.record else attacked(folder, b)
    for title, rows in study.tables.items():
        b.table(title, dict.fromkeys(rows[0], ".3f"))
        for row in rows:
            b.row(*(str(cell) if isinstance(cell, bool) else cell for cell in row.values()))
    for number, finding in enumerate(study.findings, 1):
        b.note(f"finding {number}", finding)
    for name in ("images", "steps", "restarts", "seed"):
        b.note(name, study.settings[name])
    if not b.args.record:
        b.note("CPU seconds of the study", round(time.process_time() - started, 1))


def attacked(folder: RunFolder, b: Bench) -> Study:
    """Return the study, made now."""
    eps, images = levels_in(b.args.eps), b.args.images or None
    asked = AttackOptions(
        images=images, eps=eps, transfer=b.args.transfer, elsewhere=b.args.elsewhere, seed=b.args.seed
    )
    return study_of_run(OpenedRun(folder), asked)


def recorded(folder: RunFolder) -> Study:
    """Return the study that `cliplens attack` left in a run folder."""
    for study in read_studies(folder):
        if study.name == "attack":
            return study
    raise InputError(
        expected=f"a record of attacks in {folder.path}", found="none", fix=f"run cliplens attack {folder.path}"
    )


if __name__ == "__main__":
    options = {"eps": "1,2,4,8", "images": (0, "pictures; 0 takes the default"), "seed": 0, "record": False}
    with bench(__file__, __doc__, run="cliplens-demo", transfer=None, elsewhere=None, **options) as found:
        main(found)
