"""Advise on data: find captions that miss or contradict their image, and decide what to do about each concept."""

from typing import TYPE_CHECKING

from cliplens.lazy import export_lazily

if TYPE_CHECKING:
    from cliplens_plugins.advice.concepts import Concept as Concept
    from cliplens_plugins.advice.concepts import Decision as Decision
    from cliplens_plugins.advice.concepts import concepts_of as concepts_of
    from cliplens_plugins.advice.coverage import Coverage as Coverage
    from cliplens_plugins.advice.coverage import coverage as coverage
    from cliplens_plugins.advice.matching import sdm_choose as sdm_choose
    from cliplens_plugins.advice.matching import sdm_value as sdm_value
    from cliplens_plugins.advice.scores import PairScores as PairScores
    from cliplens_plugins.advice.scores import clip_score as clip_score
    from cliplens_plugins.advice.scores import mention_rates as mention_rates
    from cliplens_plugins.advice.scores import misfit as misfit
    from cliplens_plugins.advice.scores import sae_v as sae_v
    from cliplens_plugins.advice.scores import score_pairs as score_pairs
    from cliplens_plugins.advice.scores import strong as strong
    from cliplens_plugins.advice.scores import well_matched as well_matched

export_lazily(__name__)
