"""Run the main job in one folder: harvest activations, train a dictionary, score and name its latents, write a report.

`checks` checks everything before any pair is read, `plan` decides which steps to do, `steps` records each finished
step, and `job` does them.
"""

from cliplens.run.job import dry_run as dry_run
from cliplens.run.job import run as run
from cliplens.run.opened import OpenedRun as OpenedRun
from cliplens.run.opened import asked_pairs as asked_pairs
from cliplens.run.remedies import check_whole as check_whole
from cliplens.run.remedies import resume_command as resume_command
from cliplens.run.reports import write_report as write_report
from cliplens.run.results import results as results
from cliplens.run.steps import versions as versions
from cliplens.run.study import run_study as run_study
from cliplens.run.verify import fixes as fixes
from cliplens.run.verify import verify as verify
from cliplens.settings import Settings as Settings
