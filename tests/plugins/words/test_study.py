"""The study on a run of the world, its record, and the command."""

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cliplens.errors import InputError
from cliplens.run import OpenedRun
from cliplens.studies import read_studies
from cliplens_plugins.words import of_run
from cliplens_plugins.words.command import app
from cliplens_plugins.words.of_run import study_of_run
from cliplens_plugins.words.options import WordsOptions
from support.study_runs import study_run

TABLE = "word,kind\nring,noun\nstar,noun\ndisc,noun\nred,adjective\nblue,adjective\ngreen,adjective\nin,relation\n"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> OpenedRun:
    return study_run(tmp_path_factory.mktemp("words"), "world:120")


@pytest.fixture(scope="module")
def tagger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("table") / "words.csv"
    file.write_text(TABLE)
    return file


def test_the_command_writes_a_record_labels_and_a_section(run: OpenedRun, tagger: Path, tmp_path: Path) -> None:
    names = tmp_path / "labels.txt"
    names.write_text("ring\n\nred\nRing\n")
    out = tmp_path / "labels.csv"
    options = ["--tagger", str(tagger), "--vocabulary", str(names), "--out", str(out), "--draws", "20"]
    done = CliRunner().invoke(app, [str(run.folder.path), "--pairs", "100", *options])
    assert done.exit_code == 0, done.exception
    study = next(s for s in read_studies(run.folder) if s.name == "words")
    assert "a table of one's own" in study.notes[0]
    assert "1 blank line, 1 repeated entry ('Ring')" in study.notes[1]
    assert "Latents of each label" in done.output
    assert study.notes[1] in done.output.replace("\n", " ")
    assert "living latents stand for no single word" in study.findings[0]
    assert {row["kind"] for row in study.data["kinds"]} == {"noun", "verb", "adjective", "relation", "number"}
    assert len(study.data["labels"]) == 48
    assert len(out.read_text().splitlines()) == 49
    coverage = study.data["coverage"]
    assert [c["language"] for c in coverage] == ["en"]
    assert study.data["bound"] == []
    json.dumps(study.data)
    assert (
        'id="words"' in (run.folder.path / "report.html").read_text()
        or "Kinds of words" in (run.folder.path / "report.html").read_text()
    )


def test_latents_stand_for_words_that_their_codes_follow(run: OpenedRun, tagger: Path) -> None:
    study, labels = study_of_run(run, WordsOptions(pairs=100, tagger=tagger, draws=20))
    assert labels == []
    assert study.data["untrained"]
    rows = study.data["latents"]
    assert all(-1 <= row["strength"] <= 1 and row["strength"] >= 0.2 for row in rows)


def test_wrong_options_are_said(run: OpenedRun, tagger: Path) -> None:
    with pytest.raises(InputError, match=r"--names-in of the languages en, but found 'de'"):
        study_of_run(run, WordsOptions(pairs=40, tagger=tagger, names_in=("de",), draws=20))
    done = CliRunner().invoke(app, [str(run.folder.path), "--out", "x.csv"])
    assert isinstance(done.exception, InputError)
    assert "--vocabulary beside --out" in str(done.exception)


def test_labels_of_a_vocabulary_need_no_tagger(run: OpenedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "textblob.en", None)
    names = tmp_path / "labels.txt"
    names.write_text("ring\nred\n")
    study, labels = study_of_run(run, WordsOptions(pairs=40, vocabulary=names, draws=20))
    assert len(labels) == 48
    assert "names have no label" in study.findings[0]
    assert study.notes == (
        "Kinds of words are left out, because no tagger is installed: pip install 'cliplens[words]', or pass a table "
        "of words and kinds: --tagger words.csv.",
    )
    assert "kinds" not in study.data
    rows = study.tables["Latents of each label"]
    assert {row["label"] for row in rows} <= {"ring", "red"}
    assert sum(row["by words"] + row["nearest only"] for row in rows) == sum(
        label.label is not None for label in labels
    )
    assert "How labels were found" in study.tables
    nearest = sum(label.how == "nearest" for label in labels)
    assert nearest == sum(row["nearest only"] for row in rows) > 0
    assert study.findings[1].startswith(f"{nearest} names share no word with their label")
    json.dumps(study.data)
    with pytest.raises(InputError, match="no package textblob"):
        study_of_run(run, WordsOptions(pairs=40, draws=20))
    with pytest.raises(InputError, match="No such file"):
        study_of_run(run, WordsOptions(pairs=40, vocabulary=names, tagger=tmp_path / "none.csv", draws=20))


def test_a_language_that_no_caption_has_is_refused(
    run: OpenedRun, tagger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        of_run, "_languages_of", lambda _, __, ids: tuple("en" if n % 2 else "de" for n in range(len(ids)))
    )
    with pytest.raises(InputError, match=r"--tagged with a language of the captions: de, en, but found 'xx'"):
        study_of_run(run, WordsOptions(pairs=40, tagger=tagger, tagged="xx", draws=20))
