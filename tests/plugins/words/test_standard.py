"""Names become labels of a fixed vocabulary: equal, inflected, in part, or the nearest where the model is sure."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from cliplens.errors import InputError
from cliplens_plugins.words.standard import Label, Vocabulary, agreement, write_labels

KNOWN = Vocabulary(["Ring", "star", "fire engine", "run", "city", "leaf", "blue star", "big"])


@pytest.mark.parametrize(
    ("name", "label", "confidence", "how"),
    [
        ("ring", "Ring", 1.0, "equal"),
        ("Fire-engine", None, 0.0, "none"),
        ("fire engines", "fire engine", 1.0, "inflected"),
        ("running", "run", 1.0, "inflected"),
        ("cities", "city", 1.0, "inflected"),
        ("leaves", "leaf", 1.0, "inflected"),
        ("biggest", "big", 1.0, "inflected"),
        ("a small blue star", "blue star", 2 / 3, "part"),
        ("red rings", "Ring", 0.5, "part"),
        ("ring of a star", "star", 0.5, "part"),
        ("bus", None, 0.0, "none"),
        ("", None, 0.0, "none"),
    ],
)
def test_labels_follow_the_words(name: str, label: str | None, confidence: float, how: str) -> None:
    found = KNOWN.label(name)
    assert (found.label, found.how) == (label, how)
    assert found.confidence == pytest.approx(confidence)


def embed(texts: Sequence[str]) -> np.ndarray:
    at = {"doughnut": (1, 0), "Ring": (0.9, 0.1), "fog": (0.5, 0.5)}
    rows = np.array([at.get(text, (-1, 0)) for text in texts], dtype=float)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_the_nearest_entry_counts_where_the_model_is_sure() -> None:
    found = Vocabulary(["Ring", "star"]).labels(["doughnut", "star", "", "zzz"], embed=embed, scale=20.0)
    odds = np.exp(20 * (embed(["doughnut"]) @ embed(["Ring", "star"]).T)[0])
    assert found[0].label == "Ring"
    assert found[0].how == "nearest"
    assert found[0].confidence == pytest.approx(odds[0] / odds.sum())
    assert found[1].how == "equal"
    assert found[2] == Label("", None, 0.0, "none")
    unsure = Vocabulary(["Ring", "star"]).labels(["doughnut"], embed=embed, scale=0.0, least=0.6)
    assert unsure[0].how == "none"
    assert KNOWN.labels(["doughnut"])[0].how == "none"


def test_a_vocabulary_is_read_from_lines_and_from_wordnet(tmp_path: Path) -> None:
    lines = tmp_path / "labels.txt"
    lines.write_text("ring\n\n star \nring\n", encoding="utf-8")
    assert Vocabulary.read(lines).entries == ("ring", "star")
    assert Vocabulary.read(lines).left_out.endswith("Left out: 1 blank line, 1 repeated entry ('ring').")
    assert Vocabulary(["ring", "star"]).left_out == ""
    many = Vocabulary([*"abcdefg", *"ABCDEFG", ""])
    assert many.entries == tuple("abcdefg")
    assert "7 repeated entries ('A', 'B', 'C', 'D', 'E', ...)" in many.left_out
    licence = "  1 This software and database is being provided to you\n"
    (tmp_path / "index.noun").write_text(f"{licence}fire_engine n 1 4 @ ~ #p + 1 0 03345487  \nstar n 8 5 @  \n")
    (tmp_path / "index.adj").write_text(f"{licence}blue a 8 2 ! &\n")
    assert Vocabulary.read(tmp_path).entries == ("fire engine", "star", "blue")
    assert Vocabulary.read(tmp_path).label("blue fire engines").label == "fire engine"


def test_what_is_no_vocabulary_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"one label per line.*No such file"):
        Vocabulary.read(tmp_path / "none.txt")
    with pytest.raises(InputError, match=r"WordNet's index.noun"):
        Vocabulary.read(tmp_path)
    with pytest.raises(InputError, match="one word or more"):
        Vocabulary([" ", ""])


def test_labels_of_two_runs_are_compared_by_their_confidence() -> None:
    one = [Label("a", "x", 1.0, "equal"), Label("b", "y", 0.5, "part"), Label("c", None, 0.0, "none")]
    two = [Label("d", "y", 1.0, "equal"), Label("e", "y", 0.2, "part"), Label("f", "z", 0.5, "nearest")]
    found = agreement(one, two)
    assert (found.both, found.only_first, found.only_second) == (1, 1, 1)
    assert found.overlap == pytest.approx(0.5 / (1 + 1 + 0.5))
    assert np.isnan(agreement([], []).overlap)


def test_labels_are_written(tmp_path: Path) -> None:
    write_labels(tmp_path / "labels.csv", KNOWN.labels(["rings", "fog"]))
    rows = list(csv.DictReader((tmp_path / "labels.csv").read_text().splitlines()))
    assert [(r["latent"], r["name"], r["label"], r["confidence"], r["how"]) for r in rows] == [
        ("0", "rings", "Ring", "1.0000", "inflected"),
        ("1", "fog", "", "0.0000", "none"),
    ]


def test_names_without_words_match_only_themselves_and_letters_match_however_encoded() -> None:
    vocabulary = Vocabulary(["🔴", "café", "ring"])
    assert [vocabulary.label(name).label for name in ("", "  ", "🔴", "cafe\u0301", "!")] == [
        None,
        None,
        "🔴",
        "café",
        None,
    ]
    assert vocabulary.label("two cafe\u0301s").how == "part"
