"""The default vocabulary, and the columns made of names."""

import numpy as np
import pytest
import torch

from cliplens.contracts import Namer
from cliplens.errors import PluginError
from cliplens.naming import (
    UNNAMED,
    caption_vocabulary,
    chosen_modality,
    in_context,
    name_agreement,
    name_columns,
    name_latents,
    words,
)
from cliplens.records import Evidence, LatentTable, Name
from support.evidence import planted_evidence

NAN = float("nan")


def test_vocabulary_is_ordered_by_captions_that_hold_a_word_then_by_letter() -> None:
    captions = ["a red dog dog dog", "the red cat", "a cat and the dog", "red"]
    assert caption_vocabulary(captions) == ("red", "cat", "dog")
    assert caption_vocabulary(captions, most=1) == ("red",)


def test_numerals_are_kept_and_function_words_dropped() -> None:
    assert caption_vocabulary(["there are two of them", "two is the one", "one"]) == ("one", "two")


def test_rare_words_count_where_nothing_is_frequent() -> None:
    assert set(caption_vocabulary(["zebra", "quokka"])) == {"zebra", "quokka"}
    assert caption_vocabulary(["zebra zebra", "quokka", "quokka"]) == ("quokka",)


def test_caption_vocabulary_any_script_and_markup() -> None:
    assert words("Ein Straßen-Café, don't <script>") == ["ein", "straßen-café", "don't", "script"]
    assert words("赤い 丸 3") == ["赤い", "丸"]


def test_final_name_is_from_captions_unless_images_dominate() -> None:
    found = name_columns(
        [Name("red", 0.9), Name("dog", 0.6), Name("cat", 0.8), Name(None, NAN)],
        [Name("red", 0.7), Name("wolf", 0.8), Name(None, NAN), Name(None, NAN)],
    )
    assert found.columns["name"].tolist() == ["red", "wolf", "cat", UNNAMED]
    np.testing.assert_array_equal(found.columns["name_score"], [0.7, 0.8, 0.8, NAN])
    left, right = [Name("a", 1.0), Name("b", 1.0)], [Name("c", 1.0), Name("d", 1.0)]
    assert chosen_modality(left, right, np.array([0.5, 0.9])) == ["text", "image"]
    np.testing.assert_array_equal(found.columns["name_agreement"], [1, 0, NAN, NAN])
    assert found.figures["named"] == 3


def test_a_dead_latent_is_unnamed_whatever_the_namer_says() -> None:
    found = name_columns([Name("red", 0.9)], [Name("red", 0.9)], alive=np.array([False]))
    assert found.columns["name"].tolist() == [UNNAMED]
    assert found.figures == {"named": 0, "unnamed": 0, "name_score_median": None, "name_agreement_mean": None}


def test_columns_survive_parquet_with_their_schema(tmp_path) -> None:  # type: ignore[no-untyped-def]
    found = name_columns([Name("<script>", 0.9)], [Name(None, NAN)])
    table = LatentTable({}).with_columns(found.columns, found.schema)
    table.save(tmp_path / "latents.parquet")
    loaded = LatentTable.load(tmp_path / "latents.parquet")
    assert loaded["name"].tolist() == ["<script>"]
    assert set(loaded.schema) == set(found.columns)


def test_agreement_is_the_share_of_common_words() -> None:
    assert name_agreement("red circle", "Circle") == 1
    assert name_agreement("red circle", "blue circle") == 0.5
    assert name_agreement("§", "§") == 1
    assert np.isnan(name_agreement(None, "red"))


def test_a_namer_that_gives_too_few_names_is_named() -> None:
    class Short(Namer):
        name = "short"

        def from_images(self, evidence: Evidence) -> list[Name]:
            return []

        def from_captions(self, evidence: Evidence) -> list[Name]:
            return []

    with pytest.raises(
        PluginError, match=r"Expected one name per latent \(11\) from the namer 'short', but found 0 names"
    ):
        name_latents(planted_evidence(n=40), Short())


def test_words_in_context_equal_the_slow_definition() -> None:
    torch.manual_seed(0)
    captions = ["a red dog", "the red cat", "a cat", "red", "fire truck here", "a fire and a truck"]
    acts, alone = torch.randn(6, 5).double(), torch.randn(3, 5).double()
    got = in_context(("red", "fire truck", "zebra"), [(captions[:4], acts[:4]), (captions[4:], acts[4:])], alone)
    unit = torch.nn.functional.normalize
    rows, bare = unit(acts, dim=-1), unit(unit(alone, dim=-1) - unit(alone, dim=-1).mean(0), dim=-1)
    red = unit(rows[[0, 1, 3]].mean(0) - rows.mean(0), dim=-1)
    truck = unit(rows[4] - rows.mean(0), dim=-1)
    slow = torch.stack([3 / 11 * red + 8 / 11 * bare[0], 1 / 9 * truck + 8 / 9 * bare[1], bare[2]])
    torch.testing.assert_close(got, slow)


def test_the_old_name_of_the_default_vocabulary_still_works_with_a_warning() -> None:
    import cliplens.naming

    with pytest.warns(DeprecationWarning, match="caption_vocabulary"):
        assert cliplens.naming.words_of is caption_vocabulary


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("चेहरा मुस्कान: ५", ["चेहरा", "मुस्कान"]),
        ("แมว, หน้ายิ้ม", ["แมว", "หน้ายิ้ม"]),
        ("ネコ、猫", ["ネコ", "猫"]),
        ("পোষ্য বিড়াল", ["পোষ্য", "বিড়াল"]),
        ("cafe\u0301 2", ["cafe\u0301"]),
    ],
)
def test_words_of_other_scripts_are_not_torn_apart(caption: str, expected: list[str]) -> None:
    assert words(caption) == expected


def test_one_character_is_a_word_where_it_can_be_one() -> None:
    assert caption_vocabulary(["猫 x", "猫 и", "я"]) == ("猫",)
