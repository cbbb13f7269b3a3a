import numpy as np
import pytest

from cliplens.errors import InputError
from cliplens.world import SIDE, captions, draw_scenes, ground_truth, render, world_pairs


def test_pairs_show_and_say_their_scenes() -> None:
    pairs, scenes = world_pairs(70, seed=2), draw_scenes(70, seed=2)
    assert pairs.ids[69] == "world-2-000069"
    assert pairs.captions == captions(scenes)
    assert np.array_equal(np.stack([np.asarray(pair.image) for pair in pairs]), render(scenes))


def test_bulk_pixels_are_those_of_the_single_pictures() -> None:
    pairs = world_pairs(200)
    rows = np.array([3, 199, 64, 3])
    bulk = pairs.pixels(rows)
    assert bulk is not None
    assert bulk.shape == (4, SIDE, SIDE, 3)
    assert all(np.array_equal(bulk[n], np.asarray(pairs[int(row)].image)) for n, row in enumerate(rows))


def test_the_hash_tells_pairs_apart() -> None:
    hashes = {world_pairs(20).sha256, world_pairs(21).sha256, world_pairs(20, seed=1).sha256}
    assert len(hashes) == 3
    assert world_pairs(20).sha256 in hashes


def test_names_read_as_paths() -> None:
    assert world_pairs(5).name == "world:5"
    assert world_pairs(5, seed=4).name == "world:5:4"


def test_ground_truth_is_the_scenes() -> None:
    truth, scenes = ground_truth(30, seed=1), draw_scenes(30, seed=1)
    assert truth.ids == world_pairs(30, seed=1).ids
    assert all(np.array_equal(truth.factors[name], scenes[name]) for name in truth.factors)
    assert truth.sharing["texture"] == "image"
    assert truth.values["manner"] == ("neutral", "polite", "rude")


def test_ground_truth_of_ids_in_any_order_and_of_any_seed() -> None:
    ids = ["world-1-000007", "world-0-000003", "world-1-000000"]
    truth = ground_truth(ids)
    expected = [draw_scenes(8, seed=s)["shape"][i] for s, i in ((1, 7), (0, 3), (1, 0))]
    assert truth.factors["shape"].tolist() == expected
    assert truth.rows(ids[:1])["shape"].tolist() == expected[:1]


def test_ids_of_other_pairs_are_refused() -> None:
    with pytest.raises(InputError, match=r"Expected ids of the embedded world.*found 'cat.jpg'.*Fix: take the pairs"):
        ground_truth(["cat.jpg"])


def test_a_picture_that_is_not_there() -> None:
    with pytest.raises(IndexError):
        world_pairs(3)[3]
