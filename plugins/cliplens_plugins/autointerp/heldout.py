"""Test names on held-out samples, with embeddings and with the words of captions.

See `name_tests` for the tests. Every judge tests every name in its own modality and in the other.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float
from torch import Tensor

from cliplens.contracts import Judge, Scorer
from cliplens.records import Column, Evidence, Findings, Name
from cliplens.sites import MODALITIES, Modality
from cliplens.statistics import auroc_interval
from cliplens_plugins.autointerp.name_tests import SAMPLES, TESTS, NameTest, names_of, tested_names
from cliplens_plugins.autointerp.near_misses import neighbours
from cliplens_plugins.autointerp.space import SilentSamples, exemplars_of
from cliplens_plugins.autointerp.view_judge import ViewJudge
from cliplens_plugins.autointerp.views import Embed, EmbeddingView, View, WordsView, judge_view, own_view

TITLE = "Tests of names on held-out samples"
_RANGE, _UNTESTED = "[0, 1], 0.5 = chance", "unnamed, or too few held-out samples"
_COLUMN = {"image": "name_image", "text": "name_text"}


@dataclass(frozen=True)
class HeldOutScorer(Scorer):
    """Test every name with every judge. The columns hold the detection test, the table all three tests."""

    name: ClassVar[str] = "held_out"
    judges: tuple[Judge, ...] = ()
    """Independent judges that embed names and samples, in addition to the model itself and the words of captions."""
    at_least: int = 3
    """Minimum number of held-out top samples of a latent to be tested."""
    seed: int = 0
    """Seed of the shuffled names."""

    def score(
        self,
        from_images: Sequence[Name],
        from_captions: Sequence[Name],
        evidence: Evidence,
        embed: Callable[[Sequence[str]], Float[Tensor, "text d_embed"]] | None,
        judges: Sequence[Judge] = (),
    ) -> Findings:
        """Return the columns of the detection test (own modality and cross-modal) and a table of all tests."""
        given = names_of(from_images, from_captions, evidence.alive)
        names = sorted({n for given_names in given.values() for n in given_names if n})
        views = self._views(evidence, names, embed, (*self.judges, *judges))
        near = neighbours(evidence.decoder, evidence.alive)
        results = [
            result
            for view in views
            for result in tested_names(ViewJudge(view, evidence, near, self.at_least), given, self.seed)
        ]
        columns, schema = _columns(results, evidence)
        rows = [r.row() for r in results if not np.isnan(r.scores).all()]
        return Findings(
            columns=columns, schema=schema, figures=_figures(results), tables={TITLE: rows}, notes=_notes(views)
        )

    @staticmethod
    def _views(evidence: Evidence, names: list[str], embed: Embed | None, judges: Sequence[Judge]) -> list[View]:
        if not names:
            return []
        views: list[View] = [WordsView(evidence, names)]
        if embed is not None:
            views.append(own_view(evidence, names, embed))
        views += [judge_view(judge, evidence, names) for judge in judges]
        return views


def _columns(results: Sequence[NameTest], evidence: Evidence) -> tuple[dict[str, np.ndarray], tuple[Column, ...]]:
    """Return the detection test by the least circular judge that sees the samples, as columns with intervals."""
    columns: dict[str, np.ndarray] = {}
    schema: list[Column] = []
    best = {pair: r for pair in _pairs() if (r := _best(results, *pair)) is not None}
    for (source, target), result in best.items():
        column = f"{_COLUMN[source]}_score" if source == target else f"{_COLUMN[source]}_on_{SAMPLES[target]}"
        columns[column] = result.scores
        judge = f"{result.judge!r}{', which is the model itself (circular)' if result.circular else ''}"
        about = f"Detection AUROC of the name from {SAMPLES[source]} on held-out {SAMPLES[target]}, by {judge}."
        schema.append(Column(column, about, range=_RANGE, nan=_UNTESTED))
        if source == target:
            for side, values in zip(("low", "high"), _limits(result.scores, source, evidence), strict=True):
                columns[f"{column}_{side}"] = values
                about = f"{'Lower' if side == 'low' else 'Upper'} limit of {column}, 95 %."
                schema.append(Column(f"{column}_{side}", about, range="[0, 1]", nan=_UNTESTED, source="Newcombe 2006"))
    return columns, tuple(schema)


def _pairs() -> Iterator[tuple[Modality, Modality]]:
    return ((source, target) for source in MODALITIES for target in MODALITIES)


def _best(results: Sequence[NameTest], source: Modality, target: Modality) -> NameTest | None:
    fitting = [r for r in results if r.test == TESTS[0] and (r.source, r.target) == (source, target)]
    return min(fitting, key=lambda r: r.circular, default=None)


def _limits(
    scores: Float[np.ndarray, " d_sae"], modality: Modality, evidence: Evidence
) -> tuple[Float[np.ndarray, " d_sae"], Float[np.ndarray, " d_sae"]]:
    """Return the confidence limits of each latent's AUROC, computed once per distinct score and counts."""
    exemplars = exemplars_of(evidence, modality)
    low, high = np.full(len(scores), np.nan), np.full(len(scores), np.nan)
    tested = np.flatnonzero(~np.isnan(scores))
    if exemplars is None or not len(tested):
        return low, high
    top = (exemplars.at >= 0).sum(axis=1)[tested]
    silent = SilentSamples(evidence, modality).counts[tested]
    kinds, kind_of = np.unique(np.stack([scores[tested], top, silent]), axis=1, return_inverse=True)
    limits = np.array([auroc_interval(float(s), int(p), int(n)) for s, p, n in kinds.T])
    low[tested], high[tested] = limits[kind_of.ravel()].T
    return low, high


def _figures(results: Sequence[NameTest]) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for source, target in _pairs():
        best = _best(results, source, target)
        if best is not None and not np.isnan(best.scores).all():
            key = f"names_from_{SAMPLES[source]}_on_{SAMPLES[target]}"
            for name, scores in ((key, best.scores), (f"{key}_shuffled", best.shuffled)):
                tested = scores[~np.isnan(scores)]
                figures[name] = float(tested.mean()) if len(tested) else float("nan")
    return figures


def _notes(views: Sequence[View]) -> tuple[str, ...]:
    silent = tuple(
        f"The judge {v.judge!r} cannot embed words, so it did not test the names."
        for v in views
        if isinstance(v, EmbeddingView) and not v.names
    )
    return silent + _circular(views)


def _circular(views: Sequence[View]) -> tuple[str, ...]:
    if any(v.circular for v in views) and not any(not v.circular and "image" in v.modalities for v in views):
        return (
            "Names were tested on images by the model's own text tower, which is circular: a mistake of the model in a "
            "name is repeated in the test. No independent judge was given.",
        )
    return ()
