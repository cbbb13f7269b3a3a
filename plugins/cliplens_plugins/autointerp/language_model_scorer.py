"""Test names by asking a model how well a name fits each of several samples, from 0 to 100.

The judge is a language or vision-language model, behind an OpenAI-compatible endpoint or in a local folder, as in
EleutherAI's delphi (https://github.com/EleutherAI/delphi). A question holds one name and held-out samples: top samples
of the latent, samples on which it is silent, and near misses. Their order is shuffled with the latent's index as the
seed. One answer gives all three tests (see `name_tests`). As a control, each question is repeated with the name of
another latent.

Opt-in: set `CLIPLENS_NAME_JUDGE` to "endpoint" or "transformers". A latent with both names costs eight questions.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from cliplens.contracts import Judge, Scorer
from cliplens.errors import unknown_name
from cliplens.records import Column, Evidence, Findings, Name, Pair
from cliplens.sites import MODALITIES, Modality
from cliplens_plugins.autointerp.endpoint import EndpointBackend, endpoint_queue
from cliplens_plugins.autointerp.fit_questions import FitQuestion, Kind
from cliplens_plugins.autointerp.local import LocalBackend
from cliplens_plugins.autointerp.name_tests import SAMPLES, TESTS, NameJudge, Names, Scores, names_of, tested_names
from cliplens_plugins.autointerp.near_misses import near_misses, neighbours
from cliplens_plugins.autointerp.questions import Backend, QuestionQueue
from cliplens_plugins.autointerp.space import SilentSamples, exemplars_of, top_of

VARIABLE = "CLIPLENS_NAME_JUDGE"
BACKENDS: Mapping[str, Callable[[], Backend]] = {"endpoint": EndpointBackend, "transformers": LocalBackend}
_TITLE = "Tests of names by asking a model"


@dataclass(frozen=True)
class LanguageModelScorer(Scorer):
    """Tests names by asking a model. Does nothing unless `CLIPLENS_NAME_JUDGE` names a backend."""

    name: ClassVar[str] = "asked"
    each: int = 5
    """Number of top samples, of silent samples and of near misses in a question."""
    at_least: int = 3
    """Minimum number of held-out top samples of a latent to be tested."""
    give_up_after: int = 5
    """Number of failures in a row that stop the run."""
    seed: int = 0
    """Seed of the choice of samples and of the shuffled names."""

    def score(
        self,
        from_images: Sequence[Name],
        from_captions: Sequence[Name],
        evidence: Evidence,
        embed: Callable[[Sequence[str]], Float[Tensor, "text d_embed"]] | None,
        judges: Sequence[Judge] = (),
    ) -> Findings:
        """Return the columns of the detection test (own modality) and a table of all tests."""
        backend = _backend()
        if backend is None:
            return Findings()
        judge = AskingJudge(backend, endpoint_queue(self.name, backend, self.give_up_after), evidence, self)
        given = names_of(from_images, from_captions, evidence.alive)
        results = tested_names(judge, given, self.seed)
        columns: dict[str, np.ndarray] = {}
        schema: list[Column] = []
        for result in results:
            if result.test == "detection" and result.source == result.target:
                column = f"name_{result.source}_asked"
                columns[column] = result.scores
                about = f"Detection AUROC of the name from {SAMPLES[result.source]} by asking {backend.model}."
                schema.append(Column(column, about, range="[0, 1], 0.5 = chance", nan="unnamed or no answer"))
        order = sorted(results, key=lambda r: (r.source, r.target, TESTS.index(r.test)))
        rows = [row for row in (result.row() for result in order) if row["names"]]
        return Findings(columns, tuple(schema), tables={_TITLE: rows} if rows else {})


class AskingJudge(NameJudge):
    """Scores names by asking a model about held-out samples.

    Args:
        backend: the model that answers.
        queue: sends the questions.
        evidence: held-out samples.
        settings: how many samples a question holds.
    """

    def __init__(
        self,
        backend: Backend,
        queue: QuestionQueue[list[float]],
        evidence: Evidence,
        settings: LanguageModelScorer,
    ) -> None:
        self.judge, self._queue, self._evidence, self._settings = backend.model, queue, evidence, settings
        self.modalities = tuple(m for m in MODALITIES if backend.sees or m == "text")
        self._near = neighbours(evidence.decoder, evidence.alive)

    def scores(self, lists: Sequence[Names], target: Modality) -> list[Scores]:
        """Return the scores of all tests for each list of names. All questions are sent in one batch."""
        asked = [self._questions(names, target) for names in lists]
        answers = iter(
            self._queue.ask_all([q for questions in asked for q in questions], what=f"asking about {target}s")
        )
        found = [{test: np.full(self._evidence.d_sae, np.nan) for test in TESTS} for _ in lists]
        for scores, questions in zip(found, asked, strict=True):
            for question in questions:
                for test, score in question.scores(next(answers)).items():
                    scores[test][question.latent] = score
        return list(found)

    def _questions(self, names: Names, target: Modality) -> list[FitQuestion]:
        exemplars = exemplars_of(self._evidence, target)
        if exemplars is None:
            return []
        each, silent = self._settings.each, SilentSamples(self._evidence, target)
        asked = []
        for k, name in enumerate(names):
            top = top_of(exemplars, k)
            if name is None or len(top) < self._settings.at_least:
                continue
            rng = np.random.default_rng([self._settings.seed, k])
            missed: Int[np.ndarray, " miss"] = near_misses(exemplars.at, np.array([k]), self._near)[0]
            samples: list[tuple[Kind, Pair]] = [("top", exemplars.pairs[p]) for p in rng.permutation(top)[:each]]
            samples += [("silent", self._evidence.background[p]) for p in rng.permutation(silent.of(k))[:each]]
            samples += [("near", exemplars.pairs[p]) for p in rng.permutation(missed)[:each]]
            order = rng.permutation(len(samples))
            asked.append(FitQuestion(k, name, target, tuple(samples[n] for n in order)))
        return asked


def _backend() -> Backend | None:
    asked = os.environ.get(VARIABLE)
    if not asked:
        return None
    if asked not in BACKENDS:
        raise unknown_name(VARIABLE, asked, BACKENDS)
    return BACKENDS[asked]()
