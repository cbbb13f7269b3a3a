"""Run the main job in one folder: harvest activations, train a dictionary, score and name its latents, write a report.

`checks` checks everything before any pair is read, `plan` decides which steps to do, `steps` records each finished
step, and `job` does them.
"""

from typing import TYPE_CHECKING

from cliplens.lazy import export_lazily

if TYPE_CHECKING:
    from cliplens.run.dictionary import by_modality as by_modality
    from cliplens.run.dictionary import scored_on as scored_on
    from cliplens.run.dictionary import training_config as training_config
    from cliplens.run.job import dry_run as dry_run
    from cliplens.run.job import run as run
    from cliplens.run.naming import EMBEDDING as EMBEDDING
    from cliplens.run.opened import OpenedRun as OpenedRun
    from cliplens.run.opened import asked_pairs as asked_pairs
    from cliplens.run.remedies import check_whole as check_whole
    from cliplens.run.remedies import resume_command as resume_command
    from cliplens.run.reports import write_report as write_report
    from cliplens.run.results import results as results
    from cliplens.run.scoring import samples_of as samples_of
    from cliplens.run.steps import versions as versions
    from cliplens.run.study import run_study as run_study
    from cliplens.run.sweep import dry_sweep as dry_sweep
    from cliplens.run.sweep import sweep as sweep
    from cliplens.run.sweepfolder import SweepFolder as SweepFolder
    from cliplens.run.targets import labels_of as labels_of
    from cliplens.run.targets import truth_of as truth_of
    from cliplens.run.targets import unit as unit
    from cliplens.run.units import units_of as units_of
    from cliplens.run.verify import fixes as fixes
    from cliplens.run.verify import verify as verify
    from cliplens.run.verify import verify_sweep as verify_sweep
    from cliplens.settings import Settings as Settings

export_lazily(__name__)
