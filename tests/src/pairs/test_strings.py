"""Columns of strings: what was given comes back, in few bytes, and files on disk stay there."""

import pickle
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from cliplens.pairs import Pairs, from_dataset, read_pairs
from cliplens.pairs.strings import Files, Strings

ANY = st.none() | st.text(st.characters())


@given(st.lists(ANY, max_size=9), st.slices(9))
def test_strings_are_returned_unchanged(values: list[str | None], cut: slice) -> None:
    column = Strings.of(values)
    assert list(column) == values
    assert [column[i] for i in range(len(values))] == values
    assert list(column[cut]) == values[cut]
    assert list(pickle.loads(pickle.dumps(column))) == values


def test_many_strings_cross_the_chunks() -> None:
    column = Strings.of(str(i) for i in range(150_000))
    assert len(column) == 150_000
    assert [column[i] for i in (0, 65_535, 65_536, 149_999, -1)] == ["0", "65535", "65536", "149999", "149999"]
    assert list(column[65_530:65_540]) == [str(i) for i in range(65_530, 65_540)]


def test_files_are_names_below_a_folder() -> None:
    files = Files(Path("/pictures"), Strings.of(["a.png", None, "/else/b.png"]))
    assert list(files) == [Path("/pictures/a.png"), None, Path("/else/b.png")]
    assert list(files[1:]) == [None, Path("/else/b.png")]
    assert [p.source for p in Pairs(["a", "b"], [Path("x/y.png"), None], None)] == [Path("x/y.png"), None]


def test_a_pair_of_a_table_takes_its_text_and_little_more(tmp_path: Path) -> None:
    rows, table = 20_000, tmp_path / "set.csv"
    table.write_text("image,caption\n" + "".join(f"{i:08d}.jpg,a photo of number {i}\n" for i in range(rows)))
    before = pa.total_allocated_bytes()
    pairs = read_pairs(table)
    text = sum(2 * len(i) + len(caption or "") for i, caption in zip(pairs.ids, pairs.captions, strict=True))
    assert pa.total_allocated_bytes() - before < text + 13 * rows


def test_captions_of_a_dataset_on_disk_stay_there(tmp_path: Path) -> None:
    captions = [f"a photo of number {i}" for i in range(20_000)]
    datasets.Dataset.from_dict({"caption": captions}).save_to_disk(tmp_path / "saved")
    before = pa.total_allocated_bytes()
    opened = datasets.load_from_disk(str(tmp_path / "saved"))
    pairs = from_dataset(opened, modalities="text")
    ids = 4 + len(pairs.ids[0])
    assert pa.total_allocated_bytes() - before < (ids + 8) * len(captions)
    assert pairs.captions == captions
    chosen = from_dataset(opened.select(np.array([7, 3])), modalities="text")
    assert chosen.captions == [captions[7], captions[3]]


def test_lists_of_captions_of_a_dataset() -> None:
    made = datasets.Dataset.from_dict({"caption": [["a", "b"], ["c"]], "id": [5, 6]})
    assert from_dataset(made, modalities="text").captions == ["a", "b", "c"]
    assert from_dataset(made, modalities="text").ids == ("5", "5#1", "6")
    holed = datasets.Dataset.from_dict({"caption": [["a"], [], None, ["b", None]]})
    assert from_dataset(holed, modalities="text").captions == ["a", None, None, "b", None]
