"""The benchmarks of names take the right words as right."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from cliplens.records import GroundTruth, LatentTable, Name
from cliplens.world import ground_truth, world_pairs

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
try:
    import naming as on_world
    import naming_drawings as on_drawings
    from _naming.counts import Answer, shuffled
    from _naming.tables import share
finally:
    sys.path.remove(str(BENCHMARKS))


def test_the_rule_for_right_words_gives_the_words_of_the_world() -> None:
    """What drawings need a rule for is known on the world: the rule finds these words and no others."""
    truth = ground_truth(2048, seed=0)
    right = on_drawings.right_words([str(text) for text in world_pairs(2048, seed=0).captions], truth)
    for factor, sharing in truth.sharing.items():
        for value in truth.values[factor]:
            said = right[f"{factor}={value}"]
            if sharing == "image":
                assert said == frozenset(), (factor, value)
            if sharing == "shared":
                assert said, (factor, value)
                assert said <= on_world.accepted(f"{factor}={value}"), (factor, value)


def test_a_word_of_few_captions_of_a_value_is_not_right() -> None:
    captions = ["flag: Chile"] * 2 + ["flag: Peru"] * 18 + ["the cat"] * 20
    truth = GroundTruth(
        tuple(map(str, range(40))),
        {"group": np.repeat([0, 1], 20)},
        {"group": ("flags", "animals")},
        {"group": "shared"},
    )
    right = on_drawings.right_words(captions, truth)
    assert right["group=flags"] == {"flag", "peru"}
    assert right["group=animals"] == {"cat"}  # "the" is a function word


def test_answers_by_kind_and_none_where_the_label_is_no_value() -> None:
    table = LatentTable(
        {
            "truth": np.array(["gender=woman", "artist=noto", "group=Objects", "gender=none", ""], dtype=object),
            "truth_modality": np.array(["CrossD", "ImgD", "CrossD", "CrossD", ""], dtype=object),
            "truth_correlation": np.array([0.8, 0.6, 0.4, 0.9, 0.2]),
        }
    )
    right = {"gender=woman": frozenset({"woman"}), "group=Objects": frozenset[str]()}
    found = on_drawings.answers(table, right)
    assert found[:3] == [
        Answer(on_drawings.SAID, frozenset({"woman"}), 0.8),
        Answer(on_drawings.IMAGE, frozenset(), 0.6),
        Answer(on_drawings.UNSAID, frozenset(), 0.4),
    ]
    assert found[3:] == [None, None]
    assert [answer.band for answer in found[:3] if answer] == ["one value (>= .75)", ".50 to .75", ".35 to .50"]


def test_shuffling_moves_names_between_named_latents_only() -> None:
    names = [Name("a", 1.0), Name(None, float("nan")), Name("b", 1.0), Name("c", 1.0)]
    moved = shuffled(names, seed=1)
    assert moved[1].text is None
    assert sorted(name.text for name in moved if name.text) == ["a", "b", "c"]


def test_a_share_of_nothing_is_no_share() -> None:
    assert share(0, 0) == "-"
    assert share(1, 2) == "0.500 (0.095 to 0.905)"


@pytest.mark.slow
@pytest.mark.skipif("CLIPLENS_DATA" not in os.environ, reason="CLIPLENS_DATA is unset: no real drawings")
def test_the_benchmark_on_drawings_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ["naming_drawings.py", "--limit", "100", "--artists", "noto,twemoji", "--seeds", "0"]
    monkeypatch.setattr(sys, "argv", [*asked, "--results", str(tmp_path)])
    on_drawings.main()
    text = (tmp_path / "naming_drawings.json").read_text()
    assert "Final names on real drawings" in text
