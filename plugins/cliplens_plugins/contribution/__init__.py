"""Measure how much each modality class of latents contributes to a task: Shapley values, removal, random controls."""

from typing import TYPE_CHECKING

from cliplens.lazy import export_lazily

if TYPE_CHECKING:
    from cliplens_plugins.contribution.mm_shap import mm_shap as mm_shap
    from cliplens_plugins.contribution.shapley import coalitions as coalitions
    from cliplens_plugins.contribution.shapley import shapley_values as shapley_values
    from cliplens_plugins.contribution.study import Contribution as Contribution
    from cliplens_plugins.contribution.study import contribution as contribution
    from cliplens_plugins.contribution.tasks import Problem as Problem
    from cliplens_plugins.contribution.tasks import contrastive as contrastive
    from cliplens_plugins.contribution.tasks import matching_problem as matching_problem
    from cliplens_plugins.contribution.tasks import zero_shot_problem as zero_shot_problem

export_lazily(__name__)
