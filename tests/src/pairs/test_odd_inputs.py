"""Odd rows, files and names: each is used or quarantined with its reason, and never stops the other pairs."""

import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cliplens.errors import BadPairError, PairsError
from cliplens.pairs import Pairs, RowAccount, open_image, read_pairs
from cliplens.pairs.images import caption_of
from cliplens.records import Pair
from support.pictures import png

GOOD = 3


def reasons(pairs: Pairs) -> list[str]:
    """Why each pair cannot be used, in order; an empty string for a good pair."""
    found = []
    for index in range(len(pairs)):
        pair = pairs.unidentified(index)
        try:
            caption_of(pair)
            open_image(pair)
            found.append("")
        except BadPairError as error:
            found.append(error.reason)
    return found


def good_files(folder: Path) -> None:
    for n in range(GOOD):
        (folder / f"{n}.png").write_bytes(png(seed=n))


JSON_ROWS: dict[str, tuple[str, str]] = {
    "caption is an object": ('{"image": "0.png", "caption": {"en": "x"}}', "no text in the caption but an object"),
    "caption is nested": ('{"image": "0.png", "caption": [["x"]]}', "no text in the caption but a list"),
    "caption is nan": ('{"image": "0.png", "caption": NaN}', "no caption"),
    "caption is null": ('{"image": "0.png", "caption": null}', "no caption"),
    "caption is true": ('{"image": "0.png", "caption": true}', "no text in the caption but a bool"),
    "caption is blank": ('{"image": "0.png", "caption": "  "}', "empty caption"),
    "caption has a surrogate": ('{"image": "0.png", "caption": "\\ud800"}', "a caption that is not valid Unicode"),
    "no caption at all": ('{"image": "0.png"}', "no caption"),
    "an empty list": ('{"image": "0.png", "caption": []}', "no caption"),
    "image is an object": ('{"image": {"a": 1}, "caption": "x"}', "no image but a dict"),
    "image is a list": ('{"image": ["0.png"], "caption": "x"}', "no image but a list"),
    "image is a number": ('{"image": 7, "caption": "x"}', "missing file"),
    "image is true": ('{"image": true, "caption": "x"}', "no image but a bool"),
    "image is a URL": ('{"image": "https://x.org/0.png", "caption": "x"}', "a URL, not a file"),
    "image is blank": ('{"image": " ", "caption": "x"}', "no image"),
    "image is a folder": ('{"image": ".", "caption": "x"}', "no file but a folder"),
    "image has a null byte": ('{"image": "a\\u0000.png", "caption": "x"}', "missing file"),
    "image has a surrogate": ('{"image": "\\ud800.png", "caption": "x"}', "missing file"),
    "image name is too long": (json.dumps({"image": "n" * 400 + ".png", "caption": "x"}), "unusable file name"),
    "image leaves the folder": ('{"image": "../../none.png", "caption": "x"}', "missing file"),
    "not JSON": ('{"image": ', "line 4 is not JSON"),
    "a number": ("7", "line 4 is not a JSON object but a int"),
    "too deep": ("[" * 100_000, "line 4 is not JSON"),
}


@pytest.mark.parametrize("what", JSON_ROWS)
def test_one_odd_line_of_json(tmp_path: Path, what: str) -> None:
    good_files(tmp_path)
    line, reason = JSON_ROWS[what]
    good = [json.dumps({"image": f"{n}.png", "caption": f"number {n}"}) for n in range(GOOD)]
    (tmp_path / "set.jsonl").write_text("\n".join([*good, line]) + "\n")
    pairs = read_pairs(tmp_path / "set.jsonl")
    found = reasons(pairs)
    assert found[:GOOD] == [""] * GOOD
    assert found[GOOD].startswith(reason)
    bad = {pairs.id_at(i) for i, why in enumerate(found) if why}
    assert pairs.account(bad) == RowAccount(GOOD + 1, GOOD, 1, 0)
    assert all(i.encode() for i in pairs.ids)


CSV_ROWS: dict[str, tuple[bytes, str]] = {
    "a cell too many": (b"0.png,a dog, running", "line 5: 3 cells where the header has 2"),
    "a cell too few": (b"0.png", "line 5: 1 cells where the header has 2"),
    "no caption": (b"0.png,", "empty caption"),
    "no image": (b",a dog", "no image"),
    "latin-1": ("0.png,Käse".encode("latin-1"), "a caption that is not valid Unicode"),
    "a latin-1 file name": ("Käse.png,a dog".encode("latin-1"), "missing file"),
    "a null byte": (b"a\0b.png,a dog", "missing file"),
    "a damaged picture": (b"cut.png,a dog", "unreadable image"),
    "text for a picture": (b"text.png,a dog", "unreadable image: not an image Pillow knows (.png)"),
    "an empty file": (b"empty.png,a dog", "unreadable image"),
}


@pytest.mark.parametrize("what", CSV_ROWS)
def test_one_odd_row_of_a_table(tmp_path: Path, what: str) -> None:
    good_files(tmp_path)
    (tmp_path / "cut.png").write_bytes(png()[:200])
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty.png").write_bytes(b"")
    row, reason = CSV_ROWS[what]
    lines = [b"image,caption", *(f"{n}.png,number {n}".encode() for n in range(GOOD)), row]
    (tmp_path / "set.csv").write_bytes(b"\n".join(lines) + b"\n")
    pairs = read_pairs(tmp_path / "set.csv")
    found = reasons(pairs)
    assert found[:GOOD] == [""] * GOOD
    assert found[GOOD].startswith(reason)
    assert len(pairs.sha256) == 64


def test_a_file_name_that_is_no_text_is_used_under_an_id_that_is(tmp_path: Path) -> None:
    good_files(tmp_path)
    odd = os.fsencode(tmp_path) + b"/caf\xe9"
    try:
        Path(os.fsdecode(odd + b".png")).write_bytes(png())
        Path(os.fsdecode(odd + b".txt")).write_text("the odd one")
    except OSError:
        pytest.skip("this file system has no such names")
    pairs = read_pairs(tmp_path, modalities="image")
    assert pairs.ids == ("0.png", "1.png", "2.png", "caf\\udce9.png")
    assert [open_image(pair).mode for pair in pairs] == ["RGB"] * 4
    assert len(pairs.sha256) == 64


def test_a_folder_with_odd_captions(tmp_path: Path) -> None:
    good_files(tmp_path)
    (tmp_path / "0.txt").write_text("number 0")
    (tmp_path / "1.txt").write_bytes(b"\xff\xfe\xfd")
    outside = tmp_path.parent / f"{tmp_path.name}-secret.txt"
    outside.write_text("secret")
    (tmp_path / "2.txt").symlink_to(outside)
    (tmp_path / "notes.md").write_text("x")
    (tmp_path / "alone.txt").write_text("x")
    pairs = read_pairs(tmp_path)
    assert reasons(pairs) == [
        "",
        "a caption that is not valid Unicode text",
        "a caption file that links out of the folder",
    ]
    assert "2 files without an image were passed over" in pairs.notes[0]


COCO: dict[str, tuple[Callable[[dict], None], RowAccount]] = {
    "an image without captions": (
        lambda f: f["images"].append({"id": 9, "file_name": "0.png"}),
        RowAccount(3, 2, 1, 0),
    ),
    "a caption of no image": (
        lambda f: f["annotations"].append({"image_id": 99, "caption": "x"}),
        RowAccount(3, 2, 1, 0),
    ),
    "an image without a file name": (lambda f: f["images"].append({"id": 9}), RowAccount(3, 2, 1, 0)),
    "an annotation that is text": (lambda f: f["annotations"].append("x"), RowAccount(3, 2, 1, 0)),
    "two captions": (lambda f: f["annotations"].append({"image_id": 0, "caption": "x"}), RowAccount(2, 2, 0, 0)),
    "an image id that is a list": (
        lambda f: f["annotations"].append({"image_id": [0], "caption": "x"}),
        RowAccount(3, 2, 1, 0),
    ),
}


@pytest.mark.parametrize("what", COCO)
def test_odd_coco_files(tmp_path: Path, what: str) -> None:
    good_files(tmp_path)
    change, account = COCO[what]
    found = {
        "images": [{"id": n, "file_name": f"{n}.png"} for n in range(2)],
        "annotations": [{"image_id": n, "caption": f"number {n}"} for n in range(2)],
    }
    change(found)
    (tmp_path / "captions_x.json").write_text(json.dumps(found))
    pairs = read_pairs(tmp_path / "captions_x.json")
    bad = {pairs.id_at(i) for i, why in enumerate(reasons(pairs)) if why}
    assert pairs.account(bad) == RowAccount(account.rows, account.used, account.quarantined, 0, "image")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"images": [], "annotations": {}}', "Expected COCO captions"),
        ('{"images": [{"id": 1}], "annotations": [{"category_id": 1}]}', "Expected captions in the annotations"),
        ("[1, 2]", "found list in"),
        ("7", "found int in"),
        ("", "Expected JSON in"),
        ("\xff\xfe", "Expected JSON in"),
        ("[" * 100_000, "Expected JSON in"),
    ],
)
def test_json_files_that_hold_no_pairs(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "set.json").write_text(content)
    with pytest.raises(PairsError, match=words):
        read_pairs(tmp_path / "set.json")


def tar_of(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def test_odd_samples_of_a_tar(tmp_path: Path) -> None:
    image = png()
    path = tar_of(
        tmp_path / "s.tar",
        {
            "0.png": image,
            "0.json": b'{"caption": ["one", "two"]}',
            "1.png": image,
            "1.json": b'{"caption": {"raw": "x"}}',
            "2.png": image,
            "2.json": b"[]",
            "3.png": image,
            "3.json": b"{broken",
            "4.png": image,
            "4.txt": b"caf\xe9",
            "img.v1.png": image,
            "img.v1.txt": b"first",
            "img.v2.png": image,
            "img.v2.txt": b"second",
            "5.cls": b"7",
            "6.seg.png": image,
            "6.jpg": image,
            "6.txt": b"six",
        },
    )
    pairs = read_pairs(path)
    assert pairs.ids == ("0", "0#1", "1", "2", "3", "4", "img.v1", "img.v2", "5", "6")
    assert pairs.captions == ["one", "two", None, None, None, None, "first", "second", None, "six"]
    assert [why[:28] for why in reasons(pairs)] == [
        "",
        "",
        "no text in the caption but a",
        "the .json beside the image i",
        "the .json beside the image i",
        "a caption that is not valid ",
        "",
        "",
        "no caption",
        "",
    ]
    assert pairs.image_ids[:2] == ("0", "0")
    assert pairs.account().rows == 9


def test_odd_columns_of_a_parquet(tmp_path: Path) -> None:
    struct = pa.struct([("raw", pa.string())])
    table = pa.table(
        {
            "image": [{"bytes": png(), "path": None}] * 2
            + [{"bytes": None, "path": None}, {"bytes": b"x", "path": None}],
            "caption": pa.array([{"raw": "x"}, None, {"raw": "y"}, {"raw": "z"}], type=struct),
            "id": pa.array([1.0, None, 3.0, 3.0]),
        }
    )
    pq.write_table(table, tmp_path / "set.parquet")
    pairs = read_pairs(tmp_path / "set.parquet")
    assert pairs.ids == ("1", "set-00000001", "3", "3#1")
    assert [why[:22] for why in reasons(pairs)] == [
        "no text in the caption",
        "no caption",
        *["no text in the caption"] * 2,
    ]
    assert [why[:10] for why in reasons_of_images(pairs)] == ["", "", "no image", "unreadable"]


def reasons_of_images(pairs: Pairs) -> list[str]:
    found = []
    for pair in pairs:
        try:
            open_image(pair)
            found.append("")
        except BadPairError as error:
            found.append(error.reason)
    return found


def test_tables_in_memory(tmp_path: Path) -> None:
    picture = Image.new("RGB", (8, 8), "red")
    pixels = np.zeros((8, 8, 3), np.uint8)
    frame = pandas.DataFrame(
        {"image": [picture, pixels, png(), str(tmp_path / "0.png"), None], "caption": ["a", "b", ["c", "d"], "e", "f"]}
    )
    good_files(tmp_path)
    pairs = read_pairs(frame)
    assert pairs.captions == ["a", "b", "c", "d", "e", "f"]
    assert [why[:8] for why in reasons(pairs)] == ["", "", "", "", "", "no image"]
    listed = read_pairs([(picture, "a"), (pixels, "b"), ("0.png", "c"), "x", (1, 2, 3)], image_root=tmp_path)
    assert [why.partition(",")[0] for why in reasons(listed)] == ["", "", "", "entry 3 is a str", "entry 4 is a tuple"]
    assert read_pairs([{"img": picture, "text": "a"}, {"img": picture, "text": "b"}]).captions == ["a", "b"]
    assert read_pairs([picture, picture], modalities="image").has_captions is False
    assert read_pairs(["a", "b"], modalities="text").captions == ["a", "b"]
    data = datasets.Dataset.from_dict({"image": [{"bytes": png(), "path": None}] * 2, "text": ["a", "b"]})
    assert read_pairs(data.cast_column("image", datasets.Image())).captions == ["a", "b"]
    assert read_pairs([Pair("x", picture, "a")]).ids == ("x",)
    assert read_pairs(listed) is listed
    with pytest.raises(PairsError, match=r"Expected a path, a datasets\.Dataset"):
        read_pairs(7)  # type: ignore[arg-type]


def test_pairs_of_one_picture_or_caption_share_an_id(tmp_path: Path) -> None:
    rows = ["id,image,caption", "z,a.png,one", "y,./a.png,two", "x,b.png,one ", "w,b.png,three"]
    (tmp_path / "set.csv").write_text("\n".join(rows) + "\n")
    pairs = read_pairs(tmp_path / "set.csv")
    assert pairs.image_ids == ("y", "y", "w", "w")
    assert pairs.caption_ids == ("x", "y", "x", "w")
    assert [pair.image_id for pair in pairs] == list(pairs.image_ids)
    assert pairs[::-1].image_ids == pairs.image_ids[::-1]
    named = [{"image": f"{n}.png", "caption": str(n), "cocoid": n % 2} for n in range(4)]
    assert read_pairs(named).image_ids == ("0.png", "1.png", "0.png", "1.png")
