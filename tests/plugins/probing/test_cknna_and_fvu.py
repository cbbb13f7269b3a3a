"""CKNNA and FVU against slow, obvious versions in float64."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cliplens.errors import InputError
from cliplens_plugins.probing import cknna, fvu
from cliplens_plugins.probing.cknna import cknna_by_chance, unbiased_hsic


def slow_hsic(K: np.ndarray, L: np.ndarray) -> float:
    """Song et al. 2012, sum by sum, over distinct indices."""
    n = len(K)
    first = sum(K[i, j] * L[i, j] for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    third = sum(K[i, j] * L[j, q] for i in range(n) for j in range(n) for q in range(n) if len({i, j, q}) == 3) / (
        n * (n - 1) * (n - 2)
    )
    fourth = sum(
        K[i, j] * L[q, r]
        for i in range(n)
        for j in range(n)
        for q in range(n)
        for r in range(n)
        if len({i, j, q, r}) == 4
    ) / (n * (n - 1) * (n - 2) * (n - 3))
    return first + fourth - 2 * third


def test_hsic_is_the_unbiased_estimate() -> None:
    g = np.random.default_rng(0)
    K, L = (m + m.T for m in g.normal(size=(2, 7, 7)))
    assert unbiased_hsic(torch.as_tensor(K), torch.as_tensor(L)) == pytest.approx(slow_hsic(K, L), abs=1e-10)


def slow_cknna(a: np.ndarray, b: np.ndarray, k: int) -> float:
    def kernel(x: np.ndarray) -> np.ndarray:
        return np.array([[float(u @ v) for v in x] for u in x])

    def near(K: np.ndarray) -> list[set[int]]:
        return [set(sorted((j for j in range(len(K)) if j != i), key=lambda j: -K[i, j])[:k]) for i in range(len(K))]

    def kept(K: np.ndarray, one: list[set[int]], other: list[set[int]]) -> torch.Tensor:
        n = len(K)
        return torch.tensor([[K[i, j] if j in one[i] & other[i] else 0.0 for j in range(n)] for i in range(n)])

    K, L = kernel(a), kernel(b)
    of_K, of_L = near(K), near(L)
    both = unbiased_hsic(kept(K, of_K, of_L).double(), kept(L, of_K, of_L).double())
    own = [unbiased_hsic(kept(M, n, n).double(), kept(M, n, n).double()) for M, n in ((K, of_K), (L, of_L))]
    return both / (own[0] * own[1]) ** 0.5


@given(st.integers(0, 50), st.integers(2, 6))
@settings(max_examples=12, deadline=None)
def test_cknna_is_its_definition(seed: int, k: int) -> None:
    g = np.random.default_rng(seed)
    a = g.normal(size=(14, 4))
    b = a @ g.normal(size=(4, 6)) + 0.5 * g.normal(size=(14, 6))
    assert cknna(a, b, k) == pytest.approx(slow_cknna(a, b, k), abs=1e-6)
    assert cknna(b, a, k) == pytest.approx(cknna(a, b, k), abs=1e-12)


def test_equal_representations_agree_and_unrelated_ones_are_at_chance() -> None:
    g = np.random.default_rng(1)
    a, other = g.normal(size=(300, 8)), g.normal(size=(300, 8))
    turned = a @ np.linalg.qr(g.normal(size=(8, 8)))[0] * 3
    assert cknna(a, a) == pytest.approx(1, abs=1e-12)
    assert cknna(a, turned) == pytest.approx(1, abs=1e-9)
    mean, spread = cknna_by_chance(a, other)
    assert abs(mean) < 0.1
    assert abs(cknna(a, other) - mean) < 5 * spread
    assert cknna_by_chance(a, turned)[0] < 0.1


def test_cknna_needs_more_samples_than_neighbours() -> None:
    with pytest.raises(InputError, match="more than 10 samples for 10 neighbours"):
        cknna(np.ones((10, 2)), np.ones((10, 2)))
    with pytest.raises(InputError, match="both representations for the same samples"):
        cknna(np.ones((20, 2)), np.ones((19, 2)))


@given(st.integers(0, 99), st.floats(-1e3, 1e3))
@settings(max_examples=20, deadline=None)
def test_fvu_is_its_definition_and_does_not_depend_on_the_mean(seed: int, shift: float) -> None:
    g = np.random.default_rng(seed)
    x = g.normal(size=(20, 3)) * [1, 2, 5]
    back = x + 0.3 * g.normal(size=x.shape)
    mean = [sum(row[d] for row in x) / 20 for d in range(3)]
    slow = sum((x[i, d] - back[i, d]) ** 2 for i in range(20) for d in range(3)) / sum(
        (x[i, d] - mean[d]) ** 2 for i in range(20) for d in range(3)
    )
    assert fvu(x, back) == pytest.approx(slow, rel=1e-10)
    assert fvu(x + shift, back + shift) == pytest.approx(slow, rel=1e-6)


def test_known_fractions() -> None:
    x = np.random.default_rng(0).normal(size=(50, 4)) + 3
    assert fvu(x, x) == 0
    assert fvu(x, np.broadcast_to(x.mean(0), x.shape).copy()) == pytest.approx(1, abs=1e-12)
    assert fvu(x, x + 0.1) > 0, "a constant offset is an error too"
    assert np.isnan(fvu(np.full((5, 2), 0.1), np.zeros((5, 2))))
