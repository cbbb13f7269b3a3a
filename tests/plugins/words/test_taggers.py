"""Words get their kind from TextBlob's lexicon, NLTK's tagger or a table, and missing parts are said."""

import json
import sys
from pathlib import Path

import pytest

from cliplens.errors import InputError
from cliplens_plugins.words.taggers import NltkTagger, TableTagger, check_language, kind_of_tag, open_tagger, words_in


def test_words_are_split_without_their_punctuation() -> None:
    assert words_in("Woman: dark-skin, l’été, 2½ x_y 猫の顔、笑") == [
        *("woman", "dark-skin", "l’été", "2½", "x", "y", "猫の顔", "笑")
    ]
    assert words_in("...") == []


@pytest.mark.parametrize(
    ("word", "tag", "kind"),
    [
        ("dog", "NN", "noun"),
        ("dogs", "NNPS", "noun"),
        ("running", "VBG", "verb"),
        ("are", "VBP", "other"),
        ("better", "JJR", "adjective"),
        ("under", "IN", "relation"),
        ("while", "IN", "other"),
        ("up", "RP", "relation"),
        ("to", "TO", "relation"),
        ("two", "CD", "number"),
        ("the", "DT", "other"),
        ("can", "MD", "other"),
        ("quickly", "RB", "other"),
    ],
)
def test_tags_become_kinds(word: str, tag: str, kind: str) -> None:
    assert kind_of_tag(word, tag) == kind


def test_the_lexicon_of_textblob_tags_captions() -> None:
    pytest.importorskip("textblob")
    tagger = open_tagger(None)
    found = dict(tagger.tagged("Two brown dogs sleeping under a t-shirt, don't wake them."))
    assert found["two"] == "number"
    assert found["brown"] == "adjective"
    assert found["dogs"] == "noun"
    assert found["sleeping"] == "verb"
    assert found["under"] == "relation"
    assert {"t-shirt", "don't"} <= set(found)
    assert tagger.tagged("  ") == []


def test_without_textblob_it_is_said_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "textblob.en", None)
    with pytest.raises(InputError, match=r"no package textblob. Fix: pip install 'cliplens\[words\]', or pass a table"):
        open_tagger(None)


def test_a_folder_of_nltk_is_read_without_a_download(tmp_path: Path) -> None:
    nltk = pytest.importorskip("nltk.tag.perceptron")
    trained = nltk.PerceptronTagger(load=False)
    sentences = [[("two", "CD"), ("dogs", "NNS"), ("run", "VBP")], [("a", "DT"), ("red", "JJ"), ("dog", "NN")]] * 30
    trained.train(sentences)
    parts = {"weights": trained.model.weights, "tagdict": trained.tagdict, "classes": sorted(trained.classes)}
    for part, value in parts.items():
        (tmp_path / f"averaged_perceptron_tagger_eng.{part}.json").write_text(json.dumps(value))
    tagger = open_tagger(tmp_path)
    assert tagger.tagged("A red dog") == [("a", "other"), ("red", "adjective"), ("dog", "noun")]
    assert tagger.tagged("two dogs run") == [("two", "number"), ("dogs", "noun"), ("run", "verb")]
    (tmp_path / "averaged_perceptron_tagger_eng.tagdict.json").unlink()
    with pytest.raises(InputError, match=r"tagdict.json.*unpack averaged_perceptron_tagger_eng.zip"):
        NltkTagger(tmp_path)


def test_without_nltk_it_is_said_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nltk.tag.perceptron", None)
    with pytest.raises(InputError, match="no package nltk"):
        open_tagger(tmp_path)


def test_a_table_gives_kinds_in_any_language(tmp_path: Path) -> None:
    file = tmp_path / "words.csv"
    file.write_text("word,kind\nHund,noun\n auf ,relation\n", encoding="utf-8")
    assert open_tagger(file).tagged("Ein Hund auf Rädern") == [
        *(("ein", "other"), ("hund", "noun"), ("auf", "relation"), ("rädern", "other"))
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no rows"),
        ("word,sort\na,noun\n", "the columns word, sort"),
        ("word,kind\na,nuon\n", "the kind 'nuon' of 'a'"),
    ],
)
def test_a_table_that_is_none_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "words.csv"
    file.write_text(text)
    with pytest.raises(InputError, match=message):
        TableTagger(file)
    with pytest.raises(InputError, match="No such file"):
        TableTagger(tmp_path / "none.csv")


def test_a_tagger_of_english_refuses_another_language(tmp_path: Path) -> None:
    pytest.importorskip("textblob")
    english = open_tagger(None)
    for language in ("en", "en-GB", "eng", "English"):
        check_language(english, language, None)
    with pytest.raises(InputError, match=r"a language that TextBlob's lexicon \(English\) knows: en, but found 'xx'"):
        check_language(english, "xx", None)
    file = tmp_path / "words.csv"
    file.write_text("word,kind\nHund,noun\n", encoding="utf-8")
    check_language(open_tagger(file), "de", None)
    check_language(open_tagger(file), "de", ["en", "de"])
    with pytest.raises(InputError, match=r"a language of the captions: de, en, but found 'xx'. Fix: pass one of these"):
        check_language(open_tagger(file), "xx", ["en", "de", "en"])
