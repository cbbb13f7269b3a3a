"""Names by real transformers models in a folder: a tiny Llama whose weights spell one answer, and a tiny LLaVA."""

import json
from pathlib import Path

import numpy as np
import pytest

from cliplens import registry
from cliplens.contracts import Namer
from cliplens.errors import InputError, PluginError
from cliplens.naming import split_evidence
from cliplens.records import Evidence, Name
from cliplens_plugins.autointerp.language_model_scorer import VARIABLE, LanguageModelScorer
from cliplens_plugins.autointerp.local import LocalBackend, TransformersNamer
from support.evidence import planted_evidence
from support.tiny_language_models import ANSWER, seeing, spelling

pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    return planted_evidence(n=300)


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("CLIPLENS_ENDPOINT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_it_is_what_its_entry_point_says() -> None:
    assert isinstance(registry.find("namers", "transformers").make(Namer), TransformersNamer)


def test_a_language_model_names_from_captions_alone(
    evidence: Evidence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    monkeypatch.setenv("CLIPLENS_LOCAL_MODEL", str(spelling(tmp_path / "llama")))
    names = TransformersNamer().from_captions(evidence)
    assert [n.text for n in names[:-1]] == ["something red"] * (len(names) - 1)
    assert names[-1].text is None
    assert names[0].score == 0.5
    assert names[0].evidence == "llama on its top text samples"
    assert [n.text for n in TransformersNamer().from_images(evidence)] == [None] * len(names)
    kept = list(cache.rglob("*.json"))
    assert len(kept) == len(names) - 1
    assert json.loads(kept[0].read_text())["model"] == "llama"


def test_answers_of_another_model_in_a_folder_of_that_name_are_not_taken_for_its_own(
    evidence: Evidence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = []
    for run, colour in (("first", "red"), ("second", "blue")):
        folder = spelling(tmp_path / run / "llama", tuple(word.replace("red", colour) for word in ANSWER))
        monkeypatch.setenv("CLIPLENS_LOCAL_MODEL", str(folder))
        said.append(TransformersNamer().from_captions(evidence)[0].text)
    assert said == ["something red", "something blue"]


def test_a_model_without_a_chat_template_is_asked_plainly(tmp_path: Path) -> None:
    backend = LocalBackend(spelling(tmp_path / "plain", template=None))
    assert not backend.sees
    asked = [{"role": "system", "content": "Answer."}, {"role": "user", "content": [{"type": "text", "text": "What?"}]}]
    assert json.loads(backend.reply(asked)) == {"name": "something red", "confidence": 0.5}


def test_a_model_that_talks_nonsense_stops_the_run_and_says_so(
    evidence: Evidence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = spelling(tmp_path / "babble", ("ANSWER", "well", "perhaps", "</s>"))
    monkeypatch.setenv("CLIPLENS_LOCAL_MODEL", str(folder))
    with pytest.raises(
        PluginError, match=r"Expected answers from the model in .*babble, but found 3 failures in a row"
    ):
        TransformersNamer(give_up_after=3).from_captions(evidence)


@pytest.mark.parametrize("named", [None, "no-such-folder"])
def test_without_a_folder_it_says_what_to_set(
    evidence: Evidence, monkeypatch: pytest.MonkeyPatch, named: str | None
) -> None:
    monkeypatch.delenv("CLIPLENS_LOCAL_MODEL", raising=False)
    if named:
        monkeypatch.setenv("CLIPLENS_LOCAL_MODEL", named)
    with pytest.raises(InputError, match="Fix: set the environment variable, for example CLIPLENS_LOCAL_MODEL="):
        TransformersNamer().from_captions(evidence)


def test_a_local_model_tests_names_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held_out = split_evidence(planted_evidence(n=800))[1]
    fits = [str(10 * (n % 8)) for n in range(15)]
    said = ("ANSWER", '{"fits":' + f"[{','.join(fits)}]" + "}", "</s>")
    monkeypatch.setenv("CLIPLENS_LOCAL_MODEL", str(spelling(tmp_path / "llama", said)))
    monkeypatch.setenv(VARIABLE, "transformers")
    names = [Name("something", 1.0)] * held_out.d_sae
    found = LanguageModelScorer().score(names, names, held_out, None)
    scores = found.columns["name_text_asked"]
    assert np.isfinite(scores).sum() > 1
    assert abs(np.nanmean(scores) - 0.5) < 0.2, "the same numbers whatever the samples are: chance"
    rows = next(iter(found.tables.values()))
    assert {row["tested on"] for row in rows} == {"captions"}, "it sees no pictures"
    assert all("llama" in row.values() for row in rows)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="Expected a language or vision-language model of transformers"):
        LocalBackend(tmp_path)


def test_a_model_that_sees_is_shown_the_pictures(
    evidence: Evidence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = LocalBackend(seeing(tmp_path / "llava"))
    assert backend.sees
    seen: list[tuple[int, ...]] = []
    tower = backend._model.model.vision_tower
    tower.register_forward_pre_hook(
        lambda m, args, kwargs: seen.append(tuple((args[0] if args else kwargs["pixel_values"]).shape)),
        with_kwargs=True,
    )
    from cliplens_plugins.autointerp.name_questions import name_questions

    asked = name_questions(evidence, "image", shown=3, others=2, at_least=3)[0]
    assert isinstance(backend.reply(asked.messages()), str)
    assert seen[0] == (5, 3, 32, 32)
