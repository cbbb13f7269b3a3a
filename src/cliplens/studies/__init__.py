"""Shared functions of studies of a finished run: groups of latents, their removal, controls, and records."""

from typing import TYPE_CHECKING

from cliplens.lazy import export_lazily

if TYPE_CHECKING:
    from cliplens.studies.classes import CLASS_RULES as CLASS_RULES
    from cliplens.studies.classes import ClassRule as ClassRule
    from cliplens.studies.classes import ScoredClasses as ScoredClasses
    from cliplens.studies.classes import classes_of_table as classes_of_table
    from cliplens.studies.classes import resampled_classes as resampled_classes
    from cliplens.studies.classes import score_classes as score_classes
    from cliplens.studies.controls import twin_of as twin_of
    from cliplens.studies.groups import LatentGroups as LatentGroups
    from cliplens.studies.groups import matched_sets as matched_sets
    from cliplens.studies.labelled import Labelled as Labelled
    from cliplens.studies.labelled import read_class_folders as read_class_folders
    from cliplens.studies.printing import figure as figure
    from cliplens.studies.printing import print_study as print_study
    from cliplens.studies.printing import with_interval as with_interval
    from cliplens.studies.probes import linear_probe as linear_probe
    from cliplens.studies.probes import mlp_probe as mlp_probe
    from cliplens.studies.probes import probe_auc as probe_auc
    from cliplens.studies.record import Study as Study
    from cliplens.studies.record import read_studies as read_studies
    from cliplens.studies.record import write_study as write_study
    from cliplens.studies.removal import Baseline as Baseline
    from cliplens.studies.removal import embed_without as embed_without
    from cliplens.studies.removal import sample_codes as sample_codes
    from cliplens.studies.removal import site_of as site_of

export_lazily(__name__)
