"""Pairs: ids stay with their pair whatever is taken, and the hash knows what they are."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cliplens.errors import PairsError
from cliplens.pairs import Pairs
from cliplens.pairs.pairs import unique_ids
from cliplens.pairs.strings import Strings
from support.pictures import Column


def some(n: int = 10) -> Pairs:
    pixels = np.random.default_rng(0).integers(0, 255, (n, 4, 4, 3), dtype=np.uint8)
    return Pairs([f"p{i}" for i in range(n)], Column(pixels), [f"caption {i}" for i in range(n)], name="some")


def slowly_unique(ids: list[str]) -> list[str]:
    """Each id with the least number that was neither given to anyone nor used before for the same id."""
    made: list[str] = []
    for at, name in enumerate(ids):
        tried = (f"{name}#{n}" for n in range(1, len(ids) + 2))
        made.append(name if name not in ids[:at] else next(t for t in tried if t not in ids and t not in made))
    return made


@given(st.lists(st.sampled_from(["a", "b", "a#1", "a#2", "b#1"]), max_size=12))
def test_ids_are_made_unique_the_same_way_every_time(ids: list[str]) -> None:
    made = list(unique_ids(Strings.of(ids)))
    assert len(set(made)) == len(ids)
    assert made == slowly_unique(ids)
    assert all(new.startswith(old) for new, old in zip(made, ids, strict=True))
    firsts = {name: ids.index(name) for name in ids}
    assert all(made[at] == name for name, at in firsts.items())


def test_unique_ids_are_left_alone() -> None:
    ids = Strings.of(["b", "a", "c"])
    assert unique_ids(ids) is ids


def test_taking_keeps_id_caption_and_image_together() -> None:
    pairs = some()
    taken = pairs.take([7, 2, 9])[1:]
    assert taken.ids == ("p2", "p9")
    assert taken.captions == ["caption 2", "caption 9"]
    assert [p.caption for p in taken] == ["caption 2", "caption 9"]
    assert np.array_equal(taken.pixels([1]), pairs.pixels([9]))
    assert np.array_equal(np.asarray(taken[1].image), pairs.pixels([9])[0])


def test_a_mask_takes_what_it_marks() -> None:
    pairs = some(4)
    assert pairs.take(np.array([True, False, False, True])).ids == ("p0", "p3")
    assert pairs[-1].id == "p3"
    with pytest.raises(IndexError):
        pairs[4]


def test_pixels_are_only_there_for_columns_that_have_them() -> None:
    assert Pairs(["a"], [None], ["x"]).pixels([0]) is None


def test_columns_of_unequal_length_are_refused() -> None:
    with pytest.raises(
        PairsError, match=r"Expected one caption per id \(2\), but found 1. Fix: pass one caption per pair"
    ):
        Pairs(["a", "b"], None, ["x"])


def test_the_hash_sees_ids_captions_images_and_order(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    Image.new("RGB", (4, 4)).save(file)
    base = Pairs(["a", "b"], [file, b"123"], ["x", "y"])
    same = Pairs(["a", "b"], [file, b"123"], ["x", "y"], name="other name")
    assert base.sha256 == same.sha256
    others = [
        Pairs(["a", "c"], [file, b"123"], ["x", "y"]),
        Pairs(["a", "b"], [file, b"124"], ["x", "y"]),
        Pairs(["a", "b"], [file, None], ["x", "y"]),
        Pairs(["a", "b"], [file, b"123"], ["x", ""]),
        base[::-1],
        base[:1],
    ]
    assert len({base.sha256, *(o.sha256 for o in others)}) == len(others) + 1
    before = Pairs(["a"], [file], ["x"]).sha256
    Image.new("RGB", (9, 9), "red").save(file)
    assert Pairs(["a"], [file], ["x"]).sha256 != before
