"""Groups of latents, and random sets matched to them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cliplens.errors import InputError
from cliplens.studies import LatentGroups, matched_sets


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 60), st.integers(0, 2**31), st.integers(1, 12))
def test_random_sets_have_the_size_of_the_living_members_in_every_bin(n: int, seed: int, bins: int) -> None:
    rng = np.random.default_rng(seed)
    rates = np.where(rng.random(n) < 0.2, 0.0, rng.random(n))
    mask = rng.random(n) < 0.4
    sets = matched_sets(mask, rates, 4, seed=seed, bins=bins)
    assert (sets.sum(1) == (mask & (rates > 0)).sum()).all()
    assert not (sets & (rates == 0)).any()
    order = np.flatnonzero(rates > 0)[np.argsort(rates[rates > 0], kind="stable")]
    for part in np.array_split(order, max(1, min(bins, len(order)))):
        assert (sets[:, part].sum(1) == mask[part].sum()).all()


def test_sets_follow_from_the_seed() -> None:
    mask, rates = np.arange(40) % 3 == 0, np.linspace(0.01, 1, 40)
    assert np.array_equal(matched_sets(mask, rates, 3, seed=1), matched_sets(mask, rates, 3, seed=1))
    assert not np.array_equal(matched_sets(mask, rates, 3, seed=1), matched_sets(mask, rates, 3, seed=2))


def test_undecided_is_a_group_only_where_a_latent_is() -> None:
    assert LatentGroups.from_classes(["ImgD", "dead"]).names == ("ImgD", "TextD", "CrossD", "dead")
    assert "undecided" in LatentGroups.from_classes(["ImgD", "undecided"]).names
    with pytest.raises(InputError, match="'Image'"):
        LatentGroups.from_classes(["Image"])


def test_groups_that_overlap_or_leave_out_are_refused() -> None:
    for masks in ([[True, True], [True, False]], [[True, False], [False, False]]):
        with pytest.raises(InputError, match="Fix: make the groups"):
            LatentGroups(("a", "b"), np.array(masks))
