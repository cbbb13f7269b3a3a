"""Real drawings as a source: on a tiny folder of the same layout, and on the real data where CLIPLENS_DATA is set."""

import csv
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cliplens import read_pairs
from cliplens.errors import InputError, PairsError, UnknownNameError
from cliplens.pairs import emoji_truth, read_labels
from cliplens.pairs.emoji import Drawing, EmojiSource, drawings, is_unseen, is_unseen_cell, is_unseen_concept
from cliplens.pairs.emoji.catalogue import concept_of
from cliplens.run.targets import label_of, truth_of
from cliplens.settings import Settings

DATA = os.environ.get("CLIPLENS_DATA")
HEAD = ("file", "codepoints", "name", "group", "subgroup", "gender", "skin_tone", "tags")
TONES = {"": "default", "1f3fb": "light", "1f3fc": "medium-light", "1f3fd": "medium", "1f3fe": "medium-dark"}
TONES |= {"1f3ff": "dark"}
CAT = ("cat.png", "1f408", "cat", "Animals & Nature", "animal-mammal", "", "", "pet|kitten")


def cooks() -> list[tuple[str, ...]]:
    """One profession in all 18 cells."""
    rows = []
    for code, gender in (("1f9d1", "neutral"), ("1f469", "woman"), ("1f468", "man")):
        for tone, said in TONES.items():
            codes = "_".join(part for part in (code, tone, "200d", "1f373") if part)
            name = ("cook" if gender == "neutral" else f"{gender} cook") + (f": {said} skin tone" if tone else "")
            rows.append((f"{codes}.png", codes, name, "People & Body", "person-role", gender, said, ""))
    return rows


def write(root: Path, folder: str, rows: Sequence[Sequence[str]]) -> None:
    (root / folder / "images").mkdir(parents=True)
    with (root / folder / "emoji.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([HEAD, *rows])
    for row in rows:
        Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(root / folder / "images" / row[0])


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write(tmp_path, "noto_emoji", [CAT, *cooks()])
    write(tmp_path, "twemoji", [CAT])
    (tmp_path / "emoji_languages").mkdir()
    names = [("1f408", "en", "cat", "cat|pet"), ("1f408", "de", "Katze", "Tier|Haustier")]
    names += [(row[1], "en", row[2], "cook|hat") for row in cooks()]
    columns = dict(zip(("codepoints", "language", "name", "tags"), map(list, zip(*names, strict=True)), strict=True))
    pq.write_table(pa.table(columns), tmp_path / "emoji_languages" / "emoji_languages.parquet")
    monkeypatch.setenv("CLIPLENS_DATA", str(tmp_path))
    return tmp_path


def test_each_drawing_is_a_pair_with_its_english_name_shown_on_white(data: Path) -> None:
    pairs = read_pairs("emoji:noto")
    assert (len(pairs), pairs[0].id, pairs[0].caption) == (19, "noto/cat.png", "cat")
    assert np.asarray(pairs[0].image).min() == 255
    assert "Google" in pairs.notes[0]
    assert "CLDR" in pairs.notes[1]


def test_kinds_and_languages_are_captions_of_one_picture(data: Path) -> None:
    pairs = read_pairs("emoji:noto?language=en,de&names=name,tags")
    assert list(pairs.captions[:4]) == ["cat", "Katze", "cat, pet", "Tier, Haustier"]
    assert list(pairs.ids[:4]) == ["noto/cat.png", "noto/cat.png#1", "noto/cat.png#2", "noto/cat.png#3"]
    assert {pairs[n].image_id for n in range(4)} == {"noto/cat.png"}
    assert len({pairs[n].caption_id for n in range(4)}) == 4
    assert any("36 drawings have no caption in the language de" in note for note in pairs.notes)
    assert pairs.account().rows == 19


def test_images_alone_come_once(data: Path) -> None:
    assert len(read_pairs("emoji:noto?names=name,tags", modalities="image")) == 19


def test_artists_lie_behind_one_another_and_a_path_names_a_folder(data: Path) -> None:
    assert list(read_pairs("emoji:twemoji,noto").ids[:2]) == ["twemoji/cat.png", "noto/cat.png"]
    by_path = read_pairs(f"emoji:{data / 'noto_emoji'}?names=tags", modalities="both")
    assert (by_path.ids[0], by_path.captions[0]) == ("noto_emoji/cat.png", "cat, pet")


def test_the_truth_has_the_ids_of_the_pairs_and_says_which_modality_carries_a_factor(data: Path) -> None:
    source = "emoji:noto,twemoji?language=en,de&names=name,tags"
    truth = truth_of(source)
    assert truth is not None
    assert truth.ids == tuple(read_pairs(source).ids)
    assert {name: truth.sharing[name] for name in ("artist", "language", "naming")} == {
        "artist": "image",
        "language": "text",
        "naming": "text",
    }
    told = truth.rows(["noto/cat.png#3", "twemoji/cat.png"])
    said = {name: [truth.values[name][v] for v in told[name]] for name in truth.factors}
    assert said["artist"] == ["noto", "twemoji"]
    assert said["language"] == ["de", "en"]
    assert said["naming"] == ["tags", "name"]
    assert said["profession"] == ["none", "none"]


def test_factors_are_labels_and_targets(data: Path) -> None:
    labels = read_labels("emoji:noto?language=en,de", "profession")
    assert (labels.values, labels["noto/cat.png#1"]) == (["cook", "none"], "none")
    woman = label_of(Settings(pairs="emoji:noto", target="gender=woman"))
    assert int(woman(read_pairs("emoji:noto").ids).sum()) == 6
    with pytest.raises(UnknownNameError, match="factor of the pairs"):
        read_labels("emoji:noto", "artist")
    with pytest.raises(UnknownNameError, match="value of gender"):
        label_of(Settings(pairs="emoji:noto", target="gender=girl"))


def test_a_factor_with_one_value_is_left_out(data: Path) -> None:
    truth = emoji_truth("emoji:noto")
    assert set(truth.factors) == {"group", "subgroup", "gender", "skin_tone", "profession"}
    assert truth.values["profession"] == ("cook", "none")
    assert len(truth.values["skin_tone"]) == 7


def test_concepts_lose_tone_and_gender() -> None:
    assert {concept_of(row[1]) for row in cooks()} == {"1f9d1_200d_1f373"}
    assert concept_of("1f3fb") == "1f3fb"
    assert concept_of("1f477_1f3fd_200d_2640_fe0f") == "1f477"


def test_what_is_unseen_does_not_depend_on_the_artist(data: Path) -> None:
    found = drawings(data / "noto_emoji", "noto")
    other = drawings(data / "noto_emoji", "twemoji")
    assert [is_unseen(d) for d in found] == [is_unseen(d) for d in other]
    assert not any(is_unseen_concept(d) for d in found if d.profession != "none")
    assert not any(is_unseen_cell(d) for d in found if d.profession == "none")
    trained, unseen = (len(read_pairs(f"emoji:noto?part={part}")) for part in ("trained", "unseen"))
    assert trained + unseen == 19
    assert unseen == sum(map(is_unseen, found))


def test_a_limit_takes_the_same_emoji_of_every_artist(data: Path) -> None:
    few = read_pairs("emoji:noto?limit=5")
    assert len(few) == 5
    assert list(few.ids) == list(read_pairs("emoji:noto?limit=5").ids)
    assert set(few.ids) < set(read_pairs("emoji:noto?limit=9").ids)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("emoji:", "Expected emoji:noto"),
        ("emoji:noto?size=3", "Expected emoji:noto"),
        ("emoji:noto?language", "options as NAME=VALUE"),
        (
            "emoji:notto",
            "Expected artist of noto, twemoji, fluent, or all, but found 'notto'. Fix: write for example noto",
        ),
        ("emoji:noto?language=xx", "Expected language of en, de"),
        ("emoji:noto?names=titles", "Expected names of name, tags"),
        ("emoji:noto?part=none", "Expected part of all, trained, unseen"),
        ("emoji:noto?limit=0", "limit=N with N of 1 or more"),
        ("emoji:noto?limit=5&limit=6", "Expected each option once, but found limit=5 and limit=6. Fix: keep one of"),
        ("emoji:noto?language=de&names=tags&language=de", "language=de and language=de"),
        ("emoji:fluent", "no emoji.csv there"),
        ("emoji:noto?language=ja", "names in the language 'ja'"),
        ("emoji:/no/such/folder", "a table of drawings at /no/such/folder"),
    ],
)
def test_what_cannot_be_read_is_refused_in_words(data: Path, source: str, message: str) -> None:
    with pytest.raises(PairsError) as caught:
        read_pairs(source)
    assert message in str(caught.value)


@pytest.mark.parametrize("value", [None, "/no/such/folder"])
def test_without_data_it_is_said_where_to_get_them(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLIPLENS_DATA", raising=False)
    if value is not None:
        monkeypatch.setenv("CLIPLENS_DATA", value)
    with pytest.raises(PairsError, match=r"set CLIPLENS_DATA to the folder .* docs/emoji.md"):
        read_pairs("emoji:noto")


def test_options_of_tables_are_refused(data: Path) -> None:
    with pytest.raises(InputError, match="options that emoji:"):
        read_pairs("emoji:noto", caption_column="name")


def test_damaged_tables_are_refused(data: Path) -> None:
    table = data / "noto_emoji" / "emoji.csv"
    table.write_text("file,name\na.png,a cat\n")
    with pytest.raises(PairsError, match="none called codepoints, group"):
        read_pairs("emoji:noto")
    table.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PairsError, match="a table of drawings at"):
        read_pairs("emoji:noto")


def test_damaged_names_are_refused(data: Path) -> None:
    (data / "emoji_languages" / "emoji_languages.parquet").write_bytes(b"no parquet")
    with pytest.raises(PairsError, match="names in many languages at"):
        read_pairs("emoji:noto?language=de")


def test_the_name_is_parsed() -> None:
    assert EmojiSource.parse("emoji:all?language=all&names=tags&part=unseen&limit=7") == EmojiSource(
        ("noto", "twemoji", "fluent"), EmojiSource.parse("emoji:noto?language=all").languages, ("tags",), "unseen", 7
    )


real = pytest.mark.skipif(DATA is None, reason="CLIPLENS_DATA is unset: no real drawings")


@real
def test_the_real_drawings_are_complete() -> None:
    every: list[Drawing] = drawings(Path(str(DATA)) / "noto_emoji", "noto")
    professions = {d.profession for d in every} - {"none"}
    assert (len(every), len(professions)) == (3403, 24)
    assert sum(d.profession != "none" for d in every) == 24 * 18
    assert sum(d.plain and is_unseen_concept(d) for d in every) == 177
    assert sum(map(is_unseen_cell, every)) == 66


@real
def test_the_real_pairs_have_real_names() -> None:
    pairs = read_pairs("emoji:fluent?language=de,ja&names=name,tags&limit=50")
    assert len(pairs) == 200
    assert pairs[0].image is not None
    assert pairs[0].image.size == (128, 128)
    assert all(any(ord(c) > 0x3000 for c in caption or "") for caption in pairs.captions[1::2])
