import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cliplens.keys import hashed, hashed_uniform, held_out, pair_keys


def test_keys_are_pinned() -> None:
    """The same id gives the same key on every machine: splits and bootstrap weights stand on it."""
    assert pair_keys(["a", "world-0-000001"]).tolist() == [3405396810240292928, 7392359014304274592]


@given(st.lists(st.text(), max_size=20), st.randoms())
def test_a_key_depends_on_its_id_alone(ids: list[str], random: object) -> None:
    together = pair_keys(ids)
    assert together.tolist() == [pair_keys([i])[0] for i in ids]


def test_captions_of_one_image_share_its_key() -> None:
    keys = pair_keys(["cat.jpg", "cat.jpg#1", "cat.jpg#12", "cat.jpg#x", "dog.jpg"])
    assert len(set(keys[:3].tolist())) == 1
    assert len(set(keys.tolist())) == 3


def test_no_ids_no_keys() -> None:
    assert pair_keys([]).shape == (0,)


def test_uniform_numbers_are_uniform_and_seeds_independent() -> None:
    keys = pair_keys(str(i) for i in range(20_000))
    first, second = hashed_uniform(keys, 0), hashed_uniform(keys, 1)
    for numbers in (first, second):
        assert numbers.min() >= 0
        assert numbers.max() < 1
        assert abs(numbers.mean() - 0.5) < 0.01
        assert abs(numbers.var() - 1 / 12) < 0.003
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.03


def test_hashing_has_no_collisions_on_small_keys() -> None:
    assert len(np.unique(hashed(np.arange(100_000, dtype=np.uint64), 3))) == 100_000


def test_held_out_takes_about_the_fraction_whatever_the_order() -> None:
    keys = pair_keys(str(i) for i in range(10_000))
    mask = held_out(keys, 0.2)
    assert abs(mask.mean() - 0.2) < 0.015
    assert (held_out(keys[::-1], 0.2) == mask[::-1]).all()
