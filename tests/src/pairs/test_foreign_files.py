"""Files as other programs write them: every row is read as its writer meant it, quarantined, or refused in words."""

import csv
import gzip
import inspect
import io
import itertools
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

import datasets
import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cliplens.errors import PairsError
from cliplens.pairs import read_pairs
from cliplens.pairs.cells import image_of, written_captions
from cliplens.pictures import BadPicture
from support.pictures import png

ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be")
ROWS = [("a.png", "a cat, asleep"), ("b.png", 'the "big" dog'), ("c.png", "über; 5 | 6")]


def written(delimiter: str, quoting: int, newline: str, doubled: bool) -> str:
    text = io.StringIO()
    how = {"doublequote": doubled, "escapechar": None if doubled else "\\"}
    csv.writer(text, delimiter=delimiter, quoting=quoting, lineterminator=newline, **how).writerows(  # type: ignore[arg-type]
        [("image", "caption"), *ROWS]
    )
    return text.getvalue()


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_what_the_csv_module_writes_is_read_in_every_dialect(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "set.csv"
    quoting = [(csv.QUOTE_MINIMAL, True), (csv.QUOTE_ALL, True), (csv.QUOTE_ALL, False)]
    for delimiter, (marks, doubled), newline, named in itertools.product(
        ",\t;|", quoting, ("\n", "\r\n", "\r"), (False, True)
    ):
        told = f"sep={delimiter}{newline}" if named else ""
        path.write_bytes((told + written(delimiter, marks, newline, doubled)).encode(encoding))
        pairs = read_pairs(path)
        found = [(p.id, p.caption) for p in map(pairs.unidentified, range(len(pairs)))]
        assert found == ROWS, (delimiter, marks, doubled, newline, named)
        assert pairs.account().used == len(ROWS)


def test_spaces_after_the_delimiter_belong_to_no_cell(tmp_path: Path) -> None:
    path = tmp_path / "set.csv"
    for text in ('image,caption\na.png, "cat, big"\nb.png, "dog"\n', "image, caption\na.png, cat\nb.png,  dog\n"):
        path.write_text(text)
        pairs = read_pairs(path)
        assert pairs.captions == list(pandas.read_csv(path, skipinitialspace=True)["caption"])
        assert "spaces after it left out" in pairs.notes[0]
    path.write_text('image,caption\na.png," kept"\nb.png, kept too\n')
    assert read_pairs(path).captions == [" kept", " kept too"]


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=8), min_size=1, max_size=3))
def test_lists_written_as_text_are_lists_again(captions: Sequence[str]) -> None:
    kept = list(captions)
    assert written_captions(json.dumps(kept)) == kept
    assert written_captions(repr(kept)) == kept


@pytest.mark.parametrize(
    "text", ["[1, 2]", "[]", "[Sold] a cat", "['a', 2]", "[" * 4000 + "]" * 4000, "['a'", '{"a": 1}']
)
def test_other_text_in_brackets_stays_text(text: str) -> None:
    assert written_captions(text) == text


def test_a_list_in_a_cell_becomes_several_captions(tmp_path: Path) -> None:
    frame = pandas.DataFrame({"image": ["a.png", "b.png"], "caption": [["one", "two, three"], ["four"]]})
    frame.to_csv(tmp_path / "set.csv", index=False)
    pairs = read_pairs(tmp_path / "set.csv")
    assert pairs.captions == ["one", "two, three", "four"]
    assert pairs.image_ids == ("a.png", "a.png", "b.png")
    assert "2 cells hold a list of captions" in pairs.notes[-1]


@pytest.mark.parametrize(
    "url", ["https://x/a.png", "HTTP://x/a.png", "s3://b/a.png", "file:///a.png", "data:image/png;base64,AA"]
)
def test_urls_of_every_scheme_are_no_files(url: str) -> None:
    found = image_of(url)
    assert isinstance(found, BadPicture)
    assert found.reason.startswith("a URL")


@pytest.mark.parametrize(("option", "near"), [({"quoting": "minimum"}, "minimal"), ({"modalities": "images"}, "image")])
def test_choices_that_do_not_exist_are_refused(tmp_path: Path, option: dict[str, str], near: str) -> None:
    (tmp_path / "set.csv").write_text("image,caption\na.png,x\n")
    unchecked = inspect.unwrap(read_pairs)  # the tests check annotations at run time; users do not
    with pytest.raises(PairsError, match=f"Fix: pass .*={near!r}"):
        unchecked(tmp_path / "set.csv", **option)  # type: ignore[arg-type]


def test_options_a_source_does_not_read_are_refused(tmp_path: Path) -> None:
    (tmp_path / "set.jsonl").write_text('{"image": "a.png", "caption": "x"}\n')
    (tmp_path / "a.png").write_bytes(png())
    (tmp_path / "a.txt").write_text("x")
    tar(tmp_path / "s.tar", [("0.png", png()), ("0.txt", b"x")])
    for source, option in (("set.jsonl", "delimiter"), (".", "caption_column"), ("s.tar", "image_column")):
        with pytest.raises(
            PairsError, match=rf"Expected options that .* reads.*{option} \(--{option.replace('_', '-')}\)"
        ):
            read_pairs(tmp_path / source, **{option: "x"})  # type: ignore[arg-type]


def test_names_that_are_no_source_say_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "captions.csv").write_text("")
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"image,caption\n"))
    said = {
        "": "name a file or a folder",
        "https://x.org/a.csv": "download it",
        "World:100": "write world:20480",
        "hf:": "hf:owner/name@train",
        str(tmp_path / "caption.csv"): "near it are captions.csv",
        str(tmp_path / "a.csv.gz"): "unpack it",
        str(tmp_path / "captions.csv"): "an empty file",
    }
    for source, words in said.items():
        with pytest.raises(PairsError) as refused:
            read_pairs(source)
        assert words in str(refused.value)


def test_tables_in_memory_that_are_not_one(tmp_path: Path) -> None:
    one = datasets.Dataset.from_dict({"image": ["a.png"], "caption": ["x"]})
    for source, words in (
        (pandas.Series(["x"]), "pandas frame"),
        (datasets.DatasetDict({"train": one}), "one split of a dataset, but found a DatasetDict of 'train'"),
    ):
        with pytest.raises(PairsError, match=words):
            read_pairs(source)
    datasets.DatasetDict({"train": one, "test": one}).save_to_disk(tmp_path / "saved")
    with pytest.raises(PairsError, match=r"the splits test, train\. Fix: name one of them"):
        read_pairs(tmp_path / "saved")


def test_classes_are_named_not_numbered() -> None:
    names = datasets.ClassLabel(names=["cat", "dog"])
    made = datasets.Dataset.from_dict({"image": ["a.png", "b.png", "c.png"], "caption": [1, 0, None]})
    assert read_pairs(made.cast_column("caption", names)).captions == ["dog", "cat", None]


def test_endings_are_read_in_every_letter_case(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    pq.write_table(pa.table({"image": ["a.png"], "caption": ["x"]}), tmp_path / "SET.PARQUET")
    tar(tmp_path / "S.TAR", [("0.PNG", png()), ("0.TXT", b"x")])
    (tmp_path / "a.TXT").write_text("x")
    for source in ("SET.PARQUET", "S.TAR", "."):
        pairs = read_pairs(tmp_path / source)
        assert (pairs.captions, len(pairs)) == (["x"], 1)
        assert isinstance(pairs[0].image, Image.Image)


def test_paths_in_lists_lie_below_the_image_root(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    pairs = read_pairs([(Path("a.png"), "x"), (tmp_path / "a.png", "y")], image_root=tmp_path)
    assert [pair.image is None for pair in pairs] == [False, False]


# ---------------------------------------------------------------- tars and folders


def tar(path: Path, files: Sequence[tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w") as out:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            out.addfile(info, io.BytesIO(content))
    return path


def test_a_name_given_twice_in_a_shard_is_a_sample_of_its_own(tmp_path: Path) -> None:
    files = [(f"0.{kind}", content) for n in range(3) for kind, content in (("png", png(seed=n)), ("txt", b"%d" % n))]
    pairs = read_pairs(tar(tmp_path / "s.tar", files))
    assert pairs.captions == ["0", "1", "2"]
    assert [pair.image.tobytes() for pair in pairs] == [
        Image.open(io.BytesIO(png(seed=n))).convert("RGB").tobytes() for n in range(3)
    ]  # type: ignore[union-attr]


def test_a_shard_that_ends_early_says_so(tmp_path: Path) -> None:
    files = [(f"{n}.{kind}", content) for n in range(9) for kind, content in (("png", png(seed=n)), ("txt", b"x"))]
    whole = tar(tmp_path / "s.tar", files).read_bytes()
    assert read_pairs(tmp_path / "s.tar").notes == ()
    damaged = bytearray(whole)
    damaged[len(whole) // 1024 * 512 : len(whole) // 1024 * 512 + 512] = b"\xff" * 512
    for content in (whole[:3000], whole[: 512 * 7 + 100], whole + whole):
        (tmp_path / "s.tar").write_bytes(content)
        pairs = read_pairs(tmp_path / "s.tar")
        assert "samples after that are not read" in pairs.notes[0]
        assert len(pairs) <= 9


def test_a_shard_without_captions_is_refused_and_one_with_several_images_noted(tmp_path: Path) -> None:
    tar(tmp_path / "a.tar", [("0.png", png()), ("0.cls", b"3")])
    with pytest.raises(PairsError, match=r"found 1 samples without one\. Fix: name the captions' ending"):
        read_pairs(tmp_path / "a.tar")
    assert len(read_pairs(tmp_path / "a.tar", modalities="image")) == 1
    tar(tmp_path / "b.tar", [("0.png", png()), ("0.jpg", png(seed=1)), ("0.json", b'{"text": "x"}'), ("._0.png", b"")])
    pairs = read_pairs(tmp_path / "b.tar")
    assert (pairs.captions, len(pairs.notes)) == (["x"], 1)
    assert "1 samples hold several images" in pairs.notes[0]


def test_what_systems_leave_in_folders_is_no_pair(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    (folder / "__MACOSX").mkdir(parents=True)
    (folder / "a.png").write_bytes(png())
    (folder / "a.txt").write_text("ein Käfer", encoding="utf-16")
    for name in ("._a.png", "._a.txt", ".DS_Store", "__MACOSX/._a.png"):
        (folder / name).write_bytes(b"\0\5")
    (folder / "link").symlink_to(tmp_path)
    pairs = read_pairs(folder)
    assert (pairs.ids, pairs.captions) == (("a.png",), ["ein Käfer"])
    assert pairs.notes[0] == "set: 1 linked folders were not entered: link"
    assert "4 files without an image were passed over" in pairs.notes[1]


def test_an_id_of_two_coco_images_names_neither(tmp_path: Path) -> None:
    images = [{"id": 1, "file_name": "a.png"}, {"id": 1, "file_name": "b.png"}, {"id": [2], "file_name": "c.png"}]
    said = [{"image_id": 1, "caption": "x"}, {"image_id": {"k": 1}, "caption": "y"}]
    (tmp_path / "set.json").write_text(json.dumps({"images": images, "annotations": said}))
    pairs = read_pairs(tmp_path / "set.json")
    assert pairs.captions == [None] * 4
    assert str(pairs.account()) == "4 images: 1 used, 3 quarantined"


@pytest.mark.parametrize("rows", [[4], [-5], [True, False]])
def test_indices_outside_the_pairs_are_refused(rows: list[int]) -> None:
    pairs = read_pairs([("a.png", "x")] * 4)
    assert pairs.take([-1]).ids == ("a.png#3",)
    with pytest.raises(IndexError, match=r"of 4|for 4"):
        pairs.take(rows)
