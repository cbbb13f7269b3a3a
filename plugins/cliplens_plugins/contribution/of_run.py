"""Make the study of one run: its tasks, its controls, and the record of the results."""

from typing import Any

import numpy as np
import torch

from cliplens.errors import CliplensError
from cliplens.records import PairedActs
from cliplens.run import OpenedRun
from cliplens.studies import LatentGroups, Study, classes_of_table, resampled_classes, twin_of
from cliplens_plugins.contribution.mm_shap import mm_shap
from cliplens_plugins.contribution.options import ContributionOptions
from cliplens_plugins.contribution.record import record
from cliplens_plugins.contribution.run_tasks import task_of_user, zero_shot_problems
from cliplens_plugins.contribution.study import COMPARED, contribution
from cliplens_plugins.contribution.tasks import matching_problem

ACTS = 2048
"""Number of pairs to compute classes from, for resamples and for the untrained dictionary."""
MM_SHAP_PAIRS = 24
_PID = ("pid_redundancy", "pid_unique_image", "pid_unique_text", "pid_synergy", "pid_shuffled")


def study_of_run(run: OpenedRun, asked: ContributionOptions) -> Study:
    """Return the record of the study of a run.

    Raises:
        InputError: the run has only one modality or no scores, or the labels cannot be read.
    """
    scored = classes_of_table(run.table, asked.rule)
    images, tokens = run.inputs(asked.pairs)
    problems = [matching_problem(run.clip, images, tokens, more=task_of_user(asked.function))]
    problems += zero_shot_problems(run, asked, tokens)
    acts, notes = _acts(run)
    how: dict[str, Any] = {"baseline": asked.baseline, "seed": asked.seed, "forward_batch": run.asked.forward_batch}
    draws = [] if acts is None else resampled_classes(run.dictionary, acts, asked.resamples, rule=asked.rule)
    drawn = [LatentGroups.from_classes(d.classes) for d in draws]
    found = contribution(run.clip, run.dictionary, scored, problems, controls=asked.controls, class_draws=drawn, **how)
    untrained = None
    if acts is not None:
        twin, classes = twin_of(run.dictionary, acts, rule=asked.rule, seed=asked.seed)
        untrained = contribution(run.clip, twin, classes, problems, controls=0, towers=("both",), **how)
    share = mm_shap(run.clip, images[:MM_SHAP_PAIRS], tokens[:MM_SHAP_PAIRS], side=_side(images), seed=asked.seed)
    return record(
        found, untrained, LatentGroups.from_classes(scored.classes), share.mean, _pid(run), asked, MM_SHAP_PAIRS, notes
    )


def _pid(run: OpenedRun) -> list[dict[str, Any]]:
    table = run.table
    if any(name not in table for name in _PID):
        return []
    classes = table["modality"].astype(str)
    rows = []
    for name in COMPARED:
        of = classes == name
        known = {c.removeprefix("pid_").replace("_", " "): table[c][of].astype(float) for c in _PID}
        rows.append({"class": name, **{k: float(np.nanmean(v)) if of.any() else None for k, v in known.items()}})
    return rows


def _side(images: torch.Tensor) -> int:
    """Return the largest number of patches per side up to 4 that divides the picture evenly."""
    return next(side for side in (4, 3, 2, 1) if not images.shape[-1] % side and not images.shape[-2] % side)


def _acts(run: OpenedRun) -> tuple[PairedActs | None, list[str]]:
    try:
        return run.scored_acts(ACTS), []
    except CliplensError as error:
        return None, [
            f"The control with an untrained dictionary and the resamples of the classes are left out. {error}"
        ]
