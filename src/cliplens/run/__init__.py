"""The main job: pairs -> activations -> dictionary -> scores -> names -> report, in one folder.

`checks` looks at everything before anything is read, `plan` decides which steps are to do, `steps` keeps the record of
each, and `job` does them: harvest, train, score, report.
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
