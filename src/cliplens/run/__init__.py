"""Run the main job in one folder: harvest activations, train a dictionary, score and name its latents, write a report.

`checks` checks everything before any pair is read, `plan` decides which steps to do, `steps` records each finished
step, and `job` does them.
"""

from cliplens.run.job import dry_run as dry_run
from cliplens.run.job import run as run
from cliplens.run.job import write_report as write_report
from cliplens.run.opened import OpenedRun as OpenedRun
from cliplens.run.opened import asked_pairs as asked_pairs
from cliplens.run.steps import versions as versions
from cliplens.run.verify import resume_command as resume_command
from cliplens.run.verify import verify as verify
from cliplens.settings import Settings as Settings
