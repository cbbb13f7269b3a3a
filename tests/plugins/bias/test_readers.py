"""Readers on tiny folders of each data set's layout."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cliplens.errors import InputError
from cliplens_plugins.bias import read_bias_set

EMOJI_TONES = ("default", "light", "medium-light", "medium", "medium-dark", "dark")


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(path)


def celeba(root: Path, *, table: str = "txt") -> None:
    names = [f"{n:06d}.jpg" for n in range(1, 7)]
    for name in names:
        picture(root / "img_align_celeba" / name)
    values = [(1, -1), (-1, 1), (1, 1), (-1, -1), (1, -1), (-1, 1)]
    parts = [0, 0, 1, 2, 2, 2]
    if table == "txt":
        rows = [f"{n}  {m} {b}" for n, (m, b) in zip(names, values, strict=True)]
        (root / "list_attr_celeba.txt").write_text("\n".join(["6", "Male Blond_Hair", *rows]))
        (root / "list_eval_partition.txt").write_text("\n".join(f"{n} {p}" for n, p in zip(names, parts, strict=True)))
    else:
        rows = [f"{n},{m},{b}" for n, (m, b) in zip(names, values, strict=True)]
        (root / "list_attr_celeba.csv").write_text("\n".join(["image_id,Male,Blond_Hair", *rows]))
        (root / "list_eval_partition.csv").write_text(
            "\n".join(["image_id,partition", *(f"{n},{p}" for n, p in zip(names, parts, strict=True))])
        )


@pytest.mark.parametrize("table", ["txt", "csv"])
def test_celeba(tmp_path: Path, table: str) -> None:
    celeba(tmp_path, table=table)
    found = read_bias_set(f"celeba:{tmp_path}")
    assert found.group.tolist() == [1, 0, 0, 1, 0]  # the picture of partition 1 is left out
    assert found.target.tolist() == [0, 1, 0, 0, 1]
    assert found.train.tolist() == [True, True, False, False, False]
    assert found.group_words == ("woman", "man")
    assert all(path.exists() for path in found.paths)
    with pytest.raises(InputError, match="'Blond_Hair'"):
        read_bias_set(f"celeba:{tmp_path}", target="Blonde_Hair")


def test_fairface(tmp_path: Path) -> None:
    for part in ("train", "val"):
        rows = []
        for n, (age, gender, race) in enumerate([("20-29", "Male", "Indian"), ("3-9", "Female", "Black")], 1):
            picture(tmp_path / part / f"{n}.jpg")
            rows.append(f"{part}/{n}.jpg,{age},{gender},{race},True")
        text = "\n".join(["file,age,gender,race,service_test", *rows])
        (tmp_path / f"fairface_label_{part}.csv").write_text(text)
    found = read_bias_set(f"fairface:{tmp_path}")
    assert found.group_words == ("woman", "man")
    assert found.target_words == ("person aged 20-29", "person aged 3-9")
    assert found.train.tolist() == [True, True, False, False]
    assert read_bias_set(f"fairface:{tmp_path}", target="race").target_words == ("Black", "Indian")
    with pytest.raises(InputError, match="no 'hair'"):
        read_bias_set(f"fairface:{tmp_path}", target="hair")


def test_utkface(tmp_path: Path) -> None:
    names = ["5_0_1_x.jpg", "30_1_0_x.jpg", "45_1_4_x.jpg.chip.jpg", "70_0_2_x.jpg", "39_1_20170116174525125.jpg"]
    for name in names:
        picture(tmp_path / "part1" / name)
    found = read_bias_set(f"utkface:{tmp_path}")
    assert len(found.paths) == 4  # the name without a race is passed over
    assert set(found.target_words) == {"child", "young person", "middle-aged person", "old person"}
    assert [found.group_words[g] for g in found.group] == ["woman", "woman", "man", "man"]
    assert found.train.dtype == np.bool_


def test_waterbirds(tmp_path: Path) -> None:
    rows = []
    for n, (y, place, split) in enumerate([(0, 0, 0), (1, 1, 0), (0, 1, 1), (1, 0, 2), (0, 0, 2)]):
        picture(tmp_path / "birds" / f"{n}.jpg")
        rows.append(f"{n},birds/{n}.jpg,{y},{split},{place},/x")
    text = "\n".join(["img_id,img_filename,y,split,place,place_filename", *rows])
    (tmp_path / "metadata.csv").write_text(text)
    found = read_bias_set(f"waterbirds:{tmp_path}")
    assert found.target.tolist() == [0, 1, 1, 0]
    assert found.group.tolist() == [0, 1, 0, 0]
    with pytest.raises(InputError, match="Fix: leave them out"):
        read_bias_set(f"waterbirds:{tmp_path}", group="place")


@pytest.mark.parametrize("name", ["celeba", "fairface", "utkface", "waterbirds"])
def test_an_empty_folder_and_none_are_refused_in_words(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="Fix: pass the folder of the data set"):
        read_bias_set(f"{name}:{tmp_path}")
    with pytest.raises(InputError, match="Fix: pass an existing folder"):
        read_bias_set(f"{name}:{tmp_path}/nowhere")


@pytest.mark.parametrize("spec", ["imagenet:/tmp", "celeba", "", "waterbird:/tmp"])
def test_other_names_are_refused(spec: str) -> None:
    with pytest.raises(InputError, match="data set, as NAME:FOLDER"):
        read_bias_set(spec)


def test_damaged_tables_are_refused(tmp_path: Path) -> None:
    celeba(tmp_path)
    (tmp_path / "list_attr_celeba.txt").write_text("6\nMale Blond_Hair\n000001.jpg 1")
    with pytest.raises(InputError, match=r"2 values for 000001.jpg"):
        read_bias_set(f"celeba:{tmp_path}")
    (tmp_path / "list_attr_celeba.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"list_attr_celeba.txt"):
        read_bias_set(f"celeba:{tmp_path}")


def test_emoji(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tones = dict(zip(("", "1f3fb", "1f3fc", "1f3fd", "1f3fe", "1f3ff"), EMOJI_TONES, strict=True))
    rows = ["file,codepoints,name,group,subgroup,gender,skin_tone,tags"]
    for job in ("1f373", "1f33e"):
        for person, gender in (("1f9d1", "neutral"), ("1f469", "woman"), ("1f468", "man")):
            for tone, said in tones.items():
                code = "_".join(part for part in (person, tone, "200d", job) if part)
                rows.append(f"{code}.png,{code},{gender} {job}: {said},People & Body,person-role,{gender},{said},")
    for artist in ("noto_emoji", "twemoji"):
        (tmp_path / artist).mkdir()
        (tmp_path / artist / "emoji.csv").write_text("\n".join(rows))
    monkeypatch.setenv("CLIPLENS_DATA", str(tmp_path))
    found = read_bias_set("emoji:noto,twemoji")
    assert (found.group_words, len(found.target_words), len(found.paths)) == (("man", "woman"), 2, 48)
    assert "{}: dark skin tone" in found.templates
    assert found.train[:24].tolist() == found.train[24:].tolist()  # a cell is on one side, whoever drew it
    by_tone = read_bias_set("emoji:noto", group="skin_tone")
    assert len(by_tone.paths) == 30
    assert "person: dark skin tone" in by_tone.group_words
    assert read_bias_set("emoji:noto,twemoji", group="artist").group_words == ("drawing by noto", "drawing by twemoji")
    with pytest.raises(InputError, match="attribute of emoji"):
        read_bias_set("emoji:noto", group="age")
    with pytest.raises(InputError, match="gender twice"):
        read_bias_set("emoji:noto", target="gender")
    with pytest.raises(InputError, match=r"no emoji\.csv there"):
        read_bias_set("emoji:fluent")
