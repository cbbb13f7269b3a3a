"""The main job: pairs -> activations -> dictionary -> scores -> names -> report, in one folder.

Every step leaves its files whole or not at all, so a run that was killed goes on with the first step whose files are
missing (`resume=True`).
"""

from cliplens.run.job import run as run
from cliplens.run.job import write_report as write_report
from cliplens.run.opened import OpenedRun as OpenedRun
from cliplens.run.opened import asked_pairs as asked_pairs
from cliplens.run.steps import versions as versions
from cliplens.settings import Settings as Settings
