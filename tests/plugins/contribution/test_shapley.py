"""Shapley values against their definition over all orders, and the laws they obey."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cliplens.errors import InputError
from cliplens_plugins.contribution import coalitions, shapley_values


def slow(values: np.ndarray, n: int) -> np.ndarray:
    """The mean marginal gain of each player over all orders."""
    phi = np.zeros((n, *values.shape[1:]))
    orders = list(itertools.permutations(range(n)))
    for order in orders:
        seen = 0
        for player in order:
            phi[player] += values[seen | 1 << player] - values[seen]
            seen |= 1 << player
    return phi / len(orders)


games = st.integers(1, 5).flatmap(lambda n: st.lists(st.floats(-1e3, 1e3), min_size=2**n, max_size=2**n).map(np.array))


@settings(max_examples=40, deadline=None)
@given(games)
def test_values_are_the_mean_over_all_orders_and_sum_to_the_whole(values: np.ndarray) -> None:
    n = len(values).bit_length() - 1
    found = shapley_values(values)
    assert np.allclose(found, slow(values, n), rtol=0, atol=1e-9)
    assert found.sum() == pytest.approx(values[-1] - values[0], abs=1e-9)


def test_values_of_whole_numbers_sum_exactly() -> None:
    values = np.random.default_rng(0).integers(0, 100, (2**6, 50)).astype(float) * 60
    assert np.abs(shapley_values(values).sum(0) - (values[-1] - values[0])).max() < 1e-10


def test_a_player_that_never_adds_gets_nothing_and_equals_share_equally() -> None:
    kept = coalitions(3)
    values = (kept[:, 0] & kept[:, 1]).astype(float)  # two are needed together, the third is idle
    assert shapley_values(values).tolist() == [0.5, 0.5, 0.0]


@pytest.mark.parametrize("count", [0, 1, 3, 6, 2**13])
def test_other_numbers_of_subsets_are_refused(count: int) -> None:
    with pytest.raises(InputError, match="Fix: pass them in the order"):
        shapley_values(np.zeros(count))


@pytest.mark.parametrize("n", [0, 13, -1])
def test_too_few_or_too_many_players_are_refused(n: int) -> None:
    with pytest.raises(InputError, match="Fix: combine small groups"):
        coalitions(n)
