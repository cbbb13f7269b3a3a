"""read_pairs: tables, JSON lines, folders; what is found, and the words for what is not."""

import json
from pathlib import Path

import pytest
from PIL import Image

from cliplens.errors import PairsError
from cliplens.pairs import RowAccount, read_pairs
from cliplens.pictures import BadPicture


def picture(path: Path, colour: str = "red") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), colour).save(path)
    return path


def test_a_table_with_usual_names(tmp_path: Path) -> None:
    table = tmp_path / "set.csv"
    table.write_text('\ufefffilepath,title\na.png,"a cat, asleep"\nsub/b.png,a dog\n', encoding="utf-8")
    pairs = read_pairs(table)
    assert pairs.ids == ("a.png", "sub/b.png")
    assert pairs.captions == ["a cat, asleep", "a dog"]
    assert pairs[1].source == tmp_path / "sub" / "b.png"
    assert pairs.name == "set"


def test_named_columns_id_column_and_image_root(tmp_path: Path) -> None:
    table = tmp_path / "set.tsv"
    table.write_text("file\tname\tcode\nx.png\ta cat\t7\nx.png\tthe cat\t7\n")
    pairs = read_pairs(table, image_column="file", caption_column="name", id_column="code", image_root="/pictures")
    assert pairs.ids == ("7", "7#1")
    assert pairs[0].source == Path("/pictures/x.png")


def test_a_row_of_another_width_is_a_bad_pair(tmp_path: Path) -> None:
    table = tmp_path / "set.csv"
    table.write_text("image,caption\na.png,x\nb.png\n,y\n")
    pairs = read_pairs(table)
    assert pairs.captions == ["x", None, "y"]
    assert pairs[1].source == BadPicture("line 3: 1 cells where the header has 2")
    assert pairs[1].caption_problem == "line 3: 1 cells where the header has 2"
    assert pairs[2].source is None
    assert pairs.ids == ("a.png", "b.png", "set-000002")


@pytest.mark.parametrize(
    ("modalities", "columns", "images", "captions"),
    [("image", "image", True, False), ("text", "caption", False, True)],
)
def test_one_modality_needs_one_column(
    tmp_path: Path, modalities: str, columns: str, images: bool, captions: bool
) -> None:
    table = tmp_path / "set.csv"
    table.write_text(f"{columns}\nvalue\n")
    pairs = read_pairs(table, modalities=modalities)
    assert (pairs.has_images, pairs.has_captions) == (images, captions)
    with pytest.raises(PairsError, match="Expected a column of"):
        read_pairs(table)


def test_json_lines_with_many_captions_of_one_image(tmp_path: Path) -> None:
    lines = [{"image": "a.png", "caption": ["one", "two"]}, {"image": "b.png", "caption": "three", "extra": 1}]
    file = tmp_path / "set.jsonl"
    file.write_text("\n\n".join(json.dumps(line) for line in lines))
    pairs = read_pairs(file)
    assert pairs.ids == ("a.png", "a.png#1", "b.png")
    assert pairs.captions == ["one", "two", "three"]
    assert pairs[0].source == pairs[1].source
    assert pairs.image_ids == ("a.png", "a.png", "b.png")
    assert pairs.account() == RowAccount(2, 2, 0, 0)


def test_a_folder_with_captions_beside_the_images(tmp_path: Path) -> None:
    for name in ("b/2.JPG", "a.png", "b/1.png"):
        picture(tmp_path / name.replace("JPG", "jpg")).rename(tmp_path / name)
    (tmp_path / "a.txt").write_text("a  red\nsquare\n")
    (tmp_path / "b" / "2.txt").write_text("zwei")
    pairs = read_pairs(tmp_path)
    assert pairs.ids == ("a.png", "b/1.png", "b/2.JPG")
    assert pairs.captions == ["a red square", None, "zwei"]
    assert read_pairs(tmp_path, modalities="image").has_captions is False


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        (
            "set.csv",
            "picture,words\na,b\n",
            "a column of images in .*set.csv, called 'image'.*found the columns 'picture'",
        ),
        ("set.csv", "", "found an empty file"),
        ("set.csv", "image,caption\n", "Expected at least one pair, but found none"),
        ("set.jsonl", '{"image": "a"}\n{broken\n', "a column of captions in .*set.jsonl.*found the columns 'image'"),
        ("set.jsonl", "[1]\n", "Expected a JSON object on each line of .*found line 1 is not a JSON object but a list"),
        ("set.xlsx", "x", "found a file ending in '.xlsx'"),
    ],
)
def test_errors_of_sources_name_the_cause(tmp_path: Path, name: str, content: str, words: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(PairsError, match=words):
        read_pairs(tmp_path / name)


def test_a_column_that_is_not_there_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "set.csv").write_text("image,caption_en\na,b\n")
    with pytest.raises(PairsError, match=r"Expected a column 'caption'.*Fix: use one of 'caption_en'"):
        read_pairs(tmp_path / "set.csv", caption_column="caption")


def test_bytes_that_are_no_text_are_bad_captions(tmp_path: Path) -> None:
    (tmp_path / "set.csv").write_bytes("image,caption\na,Käse\nb,cheese\n".encode("latin-1"))
    pairs = read_pairs(tmp_path / "set.csv")
    assert pairs.captions == [None, "cheese"]
    assert pairs[0].caption_problem == "a caption that is not valid Unicode text"


def test_a_table_with_a_byte_order_mark_is_read_in_its_encoding(tmp_path: Path) -> None:
    (tmp_path / "set.tsv").write_bytes("image\tcaption\na.png\tKäse\n".encode("utf-16"))
    assert read_pairs(tmp_path / "set.tsv").captions == ["Käse"]


def test_a_missing_source_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PairsError, match="found nothing at"):
        read_pairs(tmp_path / "none.csv")
    picture(tmp_path / "a.png")
    with pytest.raises(PairsError, match=r"found 1 images and no .txt file"):
        read_pairs(tmp_path)
