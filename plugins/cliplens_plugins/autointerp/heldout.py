"""All tests of names on samples no name was made from: detection, fuzzing and intruder; in a name's own modality and in
the other; by every judge; and the same with shuffled names, which must sit at chance.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float
from torch import Tensor

from cliplens.contracts import Judge, Scorer
from cliplens.records import Column, Evidence, Findings, Name
from cliplens.sites import Modality
from cliplens_plugins.autointerp.detection import detection
from cliplens_plugins.autointerp.fuzzing import fuzzing, near_misses, neighbours
from cliplens_plugins.autointerp.intervals import auroc_interval, mean_interval
from cliplens_plugins.autointerp.intruder import intruder
from cliplens_plugins.autointerp.space import silent, top_of
from cliplens_plugins.autointerp.views import Embed, View, judge_view, own_view, words_view

TESTS = ("detection", "fuzzing", "intruder")
CHANCE = {"detection": 0.5, "fuzzing": 0.5, "intruder": 0.2}
TITLE = "How well names hold on samples never used for naming"
_RANGE, _UNTESTED = "[0, 1], 0.5 = chance", "unnamed, or too few held-out samples"
_COLUMN = {"image": "name_image", "text": "name_text"}
SAMPLES: dict[Modality, str] = {"image": "images", "text": "captions"}


@dataclass(frozen=True)
class HeldOutScorer(Scorer):
    """Tests every name by every judge; the columns hold detection, the table all three tests."""

    name: ClassVar[str] = "held_out"
    judges: tuple[Judge, ...] = ()
    """Independent judges that embed names and samples; beside the model itself and the words of captions."""
    at_least: int = 3
    """Held-out top samples a latent must have to be tested."""
    seed: int = 0

    def score(
        self,
        from_images: Sequence[Name],
        from_captions: Sequence[Name],
        evidence: Evidence,
        embed: Callable[[Sequence[str]], Float[Tensor, "text d_embed"]] | None,
        judges: Sequence[Judge] = (),
    ) -> Findings:
        """Columns name_image_score and name_text_score (detection, own modality), cross-modal ones, and a table."""
        given: dict[Modality, list[str | None]] = {
            "image": [n.text if a else None for n, a in zip(from_images, evidence.alive, strict=True)],
            "text": [n.text if a else None for n, a in zip(from_captions, evidence.alive, strict=True)],
        }
        names = sorted({n for given_names in given.values() for n in given_names if n})
        views = self._views(evidence, names, embed, (*self.judges, *judges))
        results = [
            _Result(view, test, source, target, *self._both(view, test, given[source], target, evidence))
            for view in views
            for test in TESTS
            for source in ("image", "text")
            for target in ("image", "text")
            if target in view.samples
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
        views = [words_view(evidence, names)]
        if embed is not None:
            views.append(own_view(evidence, names, embed))
        views += [judge_view(judge, evidence, names) for judge in judges]
        return views

    def _both(
        self, view: View, test: str, names: list[str | None], target: Modality, evidence: Evidence
    ) -> tuple[Float[np.ndarray, " d_sae"], Float[np.ndarray, " d_sae"]]:
        shuffled = shuffle_names(names, self.seed)
        return self._scores(view, test, names, target, evidence), self._scores(view, test, shuffled, target, evidence)

    def _scores(
        self, view: View, test: str, names: list[str | None], target: Modality, evidence: Evidence
    ) -> Float[np.ndarray, " d_sae"]:
        exemplars = evidence.images if target == "image" else evidence.texts
        scores = np.full(evidence.d_sae, np.nan)
        if exemplars is None:
            return scores
        near = neighbours(evidence.decoder, evidence.alive) if test == "fuzzing" else None
        rng = np.random.default_rng(self.seed)
        for k, name in enumerate(names):
            top = top_of(exemplars, k)
            if name is None or len(top) < self.at_least:
                continue
            if near is not None:
                scores[k] = fuzzing(view, name, target, top, near_misses(exemplars, k, near[k]))
            elif test == "intruder":
                scores[k] = intruder(view, name, target, top, silent(evidence, target, k), rng)
            else:
                scores[k] = detection(view, name, target, top, silent(evidence, target, k))
        return scores


def shuffle_names(names: Sequence[str | None], seed: int = 0) -> list[str | None]:
    """The same names on other latents: named latents get a name that differs from their own, wherever there is one."""
    named = [k for k, n in enumerate(names) if n is not None]
    rng = np.random.default_rng(seed)
    shuffled: list[str | None] = [None] * len(names)
    order = rng.permutation(named)
    for place, k in enumerate(named):
        others = (str(names[order[(place + step) % len(order)]]) for step in range(len(order)))
        shuffled[k] = next((n for n in others if n != names[k]), None)
    return shuffled


@dataclass(frozen=True)
class _Result:
    view: View
    test: str
    source: Modality
    target: Modality
    scores: Float[np.ndarray, " d_sae"]
    shuffled: Float[np.ndarray, " d_sae"]

    def row(self) -> dict[str, Any]:
        """A line of the table."""
        judge = self.view.judge + (" (circular)" if self.view.circular else "")
        return tested_row(self.test, self.source, self.target, judge, self.scores, self.shuffled)


def tested_row(
    test: str,
    source: Modality,
    target: Modality,
    judge: str,
    scores: Float[np.ndarray, " d_sae"],
    shuffled: Float[np.ndarray, " d_sae"],
) -> dict[str, Any]:
    """A line of the table of tests: the mean over names with its interval, and the same for shuffled names."""
    mean, low, high = mean_interval(scores)
    control, control_low, control_high = mean_interval(shuffled)
    return {
        "test": test,
        "named from": SAMPLES[source],
        "tested on": SAMPLES[target],
        "judge": judge,
        "names": int((~np.isnan(scores)).sum()),
        "score": mean,
        "95 % interval": f"{low:.3f} to {high:.3f}",
        "chance": CHANCE[test],
        "shuffled names": control,
        "shuffled interval": f"{control_low:.3f} to {control_high:.3f}",
    }


def _columns(results: Sequence[_Result], evidence: Evidence) -> tuple[dict[str, np.ndarray], tuple[Column, ...]]:
    """Detection by the least circular judge that sees the samples, as columns with intervals."""
    columns: dict[str, np.ndarray] = {}
    schema: list[Column] = []
    best = {pair: r for pair in _pairs() if (r := _best(results, *pair)) is not None}
    for (source, target), result in best.items():
        column = f"{_COLUMN[source]}_score" if source == target else f"{_COLUMN[source]}_on_{SAMPLES[target]}"
        columns[column] = result.scores
        judge = f"{result.view.judge!r}{', which is the model itself (circular)' if result.view.circular else ''}"
        about = f"Detection AUROC of the name from {SAMPLES[source]} on held-out {SAMPLES[target]}, by {judge}."
        schema.append(Column(column, about, range=_RANGE, nan=_UNTESTED))
        if source == target:
            limits = np.array([_limits(score, source, k, evidence) for k, score in enumerate(result.scores)])
            for side, values in zip(("low", "high"), limits.reshape(-1, 2).T, strict=True):
                columns[f"{column}_{side}"] = values
                about = f"{'Lower' if side == 'low' else 'Upper'} limit of {column}, 95 %."
                schema.append(Column(f"{column}_{side}", about, range="[0, 1]", nan=_UNTESTED, source="Newcombe 2006"))
    return columns, tuple(schema)


def _pairs() -> Iterator[tuple[Modality, Modality]]:
    for source in ("image", "text"):
        for target in ("image", "text"):
            yield source, target


def _best(results: Sequence[_Result], source: Modality, target: Modality) -> _Result | None:
    fitting = [r for r in results if r.test == "detection" and (r.source, r.target) == (source, target)]
    return min(fitting, key=lambda r: r.view.circular, default=None)


def _limits(score: float, modality: Modality, latent: int, evidence: Evidence) -> tuple[float, float]:
    exemplars = evidence.images if modality == "image" else evidence.texts
    if exemplars is None:
        return float("nan"), float("nan")
    return auroc_interval(float(score), len(top_of(exemplars, latent)), len(silent(evidence, modality, latent)))


def _figures(results: Sequence[_Result]) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for source, target in _pairs():
        best = _best(results, source, target)
        if best is not None and not np.isnan(best.scores).all():
            key = f"names_from_{SAMPLES[source]}_on_{SAMPLES[target]}"
            figures[key] = mean_interval(best.scores)[0]
            figures[f"{key}_shuffled"] = mean_interval(best.shuffled)[0]
    return figures


def _notes(views: Sequence[View]) -> tuple[str, ...]:
    if any(v.circular for v in views) and not any(not v.circular and "image" in v.samples for v in views):
        return (
            "Names were tested on images by the model's own text tower, which is circular: "
            "it may call a name right for the very reason it is wrong. An independent judge was not given.",
        )
    return ()
