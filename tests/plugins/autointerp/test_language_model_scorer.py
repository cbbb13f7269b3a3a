"""Names tested by asking a model behind a real HTTP server, against known answers."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cliplens import registry
from cliplens.contracts import Scorer
from cliplens.errors import PluginError, UnknownNameError
from cliplens.naming import split_evidence
from cliplens.records import Evidence, Name
from cliplens_plugins.autointerp.fit_questions import FitQuestion, read_fits
from cliplens_plugins.autointerp.language_model_scorer import VARIABLE, LanguageModelScorer
from support.chat_server import Server, environment
from support.evidence import DOT, WORDS, planted_evidence
from support.served import serving

pytest.importorskip("openai", reason="needs the extra 'endpoint'")
NAMES = [*(Name(word, 1.0) for word in WORDS), Name(None, float("nan"))]
NONE = [Name(None, float("nan"))] * len(NAMES)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    with serving(Server()) as running:
        for name, value in environment(running, str(tmp_path / "cache")).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv(VARIABLE, "endpoint")
        yield running


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    return split_evidence(planted_evidence(n=800))[1]


def table(found: object, tested_on: str = "captions") -> dict[str, dict[str, float]]:
    rows = next(iter(found.tables.values()))  # type: ignore[attr-defined]
    return {r["test"]: r for r in rows if r["tested on"] == tested_on and r["named from"] == "captions"}


def test_right_names_pass_and_shuffled_ones_sit_at_chance(server: Server, evidence: Evidence) -> None:
    found = LanguageModelScorer().score(NONE, NAMES, evidence, None)
    rows = table(found)
    assert rows["detection"]["score"] == rows["intruder"]["score"] == 1.0
    assert rows["fuzzing"]["score"] > 0.95
    assert abs(rows["detection"]["shuffled names"] - 0.5) < 0.15
    assert rows["intruder"]["shuffled names"] < 0.5
    np.testing.assert_array_equal(found.columns["name_text_asked"], [*[1.0] * len(WORDS), np.nan])
    assert "tiny" in found.schema[-1].about


def test_fits_of_pictures_the_model_cannot_see_are_at_chance(server: Server, evidence: Evidence) -> None:
    rows = table(LanguageModelScorer().score(NONE, NAMES, evidence, None), "images")
    assert rows["detection"]["score"] == 0.5
    assert rows["intruder"]["score"] == 0.0
    sent = [p for r in server.requests for p in r["messages"][1]["content"] if p["type"] == "image_url"]
    assert sent
    assert all(p["image_url"]["url"].startswith("data:image/png;base64,") for p in sent)


@pytest.mark.parametrize("trouble", [["limit"], ["fail", "malformed"], ["cut"], ["few", "few"]])
def test_failed_requests_are_repeated_until_every_name_has_a_score(
    server: Server, evidence: Evidence, trouble: list[str]
) -> None:
    server.script = trouble
    assert table(LanguageModelScorer().score(NONE, NAMES, evidence, None))["detection"]["names"] == len(WORDS)


def test_a_stopped_run_asks_only_the_open_questions(server: Server, evidence: Evidence) -> None:
    scorer = LanguageModelScorer(give_up_after=3)
    server.fails_after = 7
    with pytest.raises(PluginError, match=r"failures in a row.*new answers are cached"):
        scorer.score(NONE, NAMES, evidence, None)
    kept, server.fails_after = server.answered, None
    assert kept > 0
    assert table(scorer.score(NONE, NAMES, evidence, None))["detection"]["names"] == len(WORDS)
    different = {json.dumps(request, sort_keys=True) for request in server.requests}
    assert server.answered <= len(different) + 4  # those on their way when the run stopped


def test_questions_do_not_say_which_sample_is_of_which_kind(evidence: Evidence, server: Server) -> None:
    LanguageModelScorer().score(NONE, NAMES, evidence, None)
    for request in server.requests:
        said = [p["text"] for p in request["messages"][1]["content"] if p["type"] == "text"]
        assert not any(word in " ".join(said).lower() for word in ("silent", "fires", "top sample", "near miss"))


def test_no_question_is_asked_unless_a_backend_is_named(evidence: Evidence, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert LanguageModelScorer().score(NONE, NAMES, evidence, None).columns == {}
    monkeypatch.setenv(VARIABLE, "endpiont")
    with pytest.raises(UnknownNameError, match="endpoint"):
        LanguageModelScorer().score(NONE, NAMES, evidence, None)


def test_the_entry_point_names_the_scorer() -> None:
    assert isinstance(registry.find("scorers", "asked").make(Scorer), LanguageModelScorer)


def test_scores_of_one_answer() -> None:
    from cliplens.records import Pair

    kinds = ["silent", "top", "near", "top", "top", "top", "silent", "near"]
    fit = FitQuestion(0, "red", "text", tuple((k, Pair(str(n), DOT, k)) for n, k in enumerate(kinds)))
    found = fit.scores([0.2, 0.9, 0.95, 0.8, 0.7, 0.3, 0.5, 0.1])
    assert found == {"detection": 7 / 8, "fuzzing": 0.5, "intruder": 1.0}
    assert all(np.isnan(v) for v in fit.scores(None).values())
    with pytest.raises(ValueError, match="1 fits for 8 samples"):
        fit.read('{"fits": [50]}')


@pytest.mark.parametrize("text", ["", "no", '{"fits": []}', '{"fits": "all"}', '{"fits": [null]}', "[50]"])
def test_answers_without_numbers_are_refused(text: str) -> None:
    with pytest.raises((ValueError, TypeError)):
        read_fits(text)


def test_numbers_are_scaled_to_the_unit_interval() -> None:
    assert read_fits('So: {"fits": [0, 50, 120, -3]} done') == [0.0, 0.5, 1.0, 0.0]
