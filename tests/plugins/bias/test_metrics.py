"""Metrics of bias against hand-made cases, slow versions and laws."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cliplens.errors import InputError
from cliplens_plugins.bias import (
    association,
    equalised_odds,
    group_accuracy,
    max_skew,
    ndkl,
    parity_difference,
    worst_group_auc,
)
from cliplens_plugins.bias.metrics import accuracy_intervals, ranking


def test_accuracy_by_cell() -> None:
    right = np.array([1, 1, 0, 1, 0, 0], dtype=bool)
    found = group_accuracy(right, np.array([0, 0, 0, 1, 1, 1]), np.array([0, 0, 1, 0, 0, 1]))
    assert found.cells.tolist() == [[1.0, 0.0], [0.5, 0.0]]
    assert (found.worst, found.mean, found.gap) == (0.0, 0.5, 0.5)
    alone = group_accuracy(right[:2], np.array([0, 1]), np.array([0, 1]))
    assert np.isnan(alone.cells[0, 1])
    assert alone.worst == 1.0


def slow_ndkl(groups: list[int], q: list[float]) -> float:
    total = z = 0.0
    for i in range(1, len(groups) + 1):
        shares = [groups[:i].count(g) / i for g in range(len(q))]
        kl = sum(s * np.log(s / r) for s, r in zip(shares, q, strict=True) if s > 0)
        total, z = total + kl / np.log2(i + 1), z + 1 / np.log2(i + 1)
    return total / z


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 2), min_size=2, max_size=25), st.integers(1, 25), st.integers(0, 1000))
def test_skew_and_ndkl_agree_with_slow_versions(groups: list[int], k: int, seed: int) -> None:
    group = np.array(groups)
    order = np.random.default_rng(seed).permutation(len(group))
    k = min(k, len(group))
    ranked = group[order].tolist()
    pool = [groups.count(g) / len(groups) for g in range(3)]
    for reference, q in (("uniform", [1 / 3] * 3), ("pool", pool)):
        wanted = max(np.log((ranked[:k].count(g) / k or 1 / k) / q[g]) for g in range(3) if q[g] > 0)
        assert max_skew(order, group, k, n_groups=3, reference=reference) == pytest.approx(wanted)  # type: ignore[arg-type]
        if all(q):
            assert ndkl(order, group, n_groups=3, reference=reference) == pytest.approx(slow_ndkl(ranked, q))  # type: ignore[arg-type]


def test_a_ranking_with_the_pools_shares_has_no_skew() -> None:
    group = np.array([0, 1, 0, 1])
    assert max_skew(np.arange(4), group, 2, n_groups=2) == 0.0
    with pytest.raises(InputError, match="Fix: pass a k in that range"):
        max_skew(np.arange(4), group, 5, n_groups=2)


def test_ties_keep_the_order_of_the_items() -> None:
    assert ranking(np.array([0.5, 0.5, 0.9, 0.5])).tolist() == [2, 0, 1, 3]


def test_an_association_is_found_and_chance_is_not() -> None:
    g = torch.Generator().manual_seed(0)
    a, b = torch.eye(8)[:1], torch.eye(8)[1:2]
    x = a + 0.1 * torch.randn(20, 8, generator=g)
    y = b + 0.1 * torch.randn(20, 8, generator=g)
    strong, none = association(x, y, a, b), association(x[:10], x[10:], a, b)
    assert strong.d > 1.5
    assert strong.p < 0.01
    assert none.p > 0.01
    assert association(y, x, a, b).p > 0.9
    alike = association(a.expand(3, -1), a.expand(3, -1), a, b)
    assert np.isnan(alike.d)
    assert alike.p == 1.0


def test_permutation_p_is_uniform_where_nothing_is_there() -> None:
    g = torch.Generator().manual_seed(1)
    a, b = torch.eye(6)[:1], torch.eye(6)[1:2]
    ps = [association(*torch.randn(2, 8, 6, generator=g), a, b, permutations=99, seed=n).p for n in range(60)]
    assert 0.3 < np.mean(ps) < 0.7


def test_parity_and_odds() -> None:
    group = np.array([0, 0, 1, 1])
    assert parity_difference(np.array([1, 0, 1, 0]), group) == 0.0
    assert parity_difference(np.array([1, 1, 0, 0]), group) == 1.0
    target = np.array([1, 0, 1, 0])
    assert equalised_odds(target, target, group) == 0.0
    assert equalised_odds(np.array([1, 0, 0, 0]), target, group) == 1.0


def test_worst_group_auc_is_the_lowest() -> None:
    score = np.array([0.9, 0.1, 0.1, 0.9])
    positive = np.array([True, False, True, False])
    assert worst_group_auc(score, positive, np.array([0, 0, 1, 1])) == 0.0
    assert np.isnan(worst_group_auc(score, positive, np.array([0, 1, 2, 3])))


def test_the_interval_of_the_worst_group_holds_its_value_and_knows_that_no_hit_is_no_certainty() -> None:
    target, group = np.repeat([0, 0, 1, 1], 12), np.repeat([0, 1, 0, 1], 12)
    right = np.ones(48, dtype=bool)
    right[:12] = False
    found = accuracy_intervals(right, target, group)
    assert found["worst"][:2] == (0.0, 0.0)
    assert 0.2 < found["worst"][2] < 0.5
    assert found["mean"][0] == 0.75
    assert found["gap"][0] == 0.75
    for value, low, high in found.values():
        assert 0 <= low <= value <= high <= 1
    certain = accuracy_intervals(np.ones(48, dtype=bool), target, group)
    assert certain["worst"][1] < 1 == certain["worst"][2]
    assert certain["gap"][:2] == (0.0, 0.0)


@pytest.mark.parametrize("accuracy", [(0.5, 0.5, 0.5, 0.5), (0.2, 0.6, 0.9, 1.0), (0.97, 0.99, 0.95, 1.0)])
@pytest.mark.parametrize("size", [12, 200])
def test_the_intervals_of_accuracy_cover(accuracy: tuple[float, ...], size: int) -> None:
    rng = np.random.default_rng(0)
    target, group = np.repeat([0, 0, 1, 1], size), np.repeat([0, 1, 0, 1], size)
    true = {"mean": np.mean(accuracy), "worst": min(accuracy), "gap": np.mean(accuracy) - min(accuracy)}
    held = dict.fromkeys(true, 0)
    for _ in range(250):
        found = accuracy_intervals(rng.random(4 * size) < np.repeat(accuracy, size), target, group)
        for name, value in true.items():
            held[name] += found[name][1] <= value <= found[name][2]
    assert min(held.values()) >= 0.905 * 250  # 94 %, less two standard errors


@pytest.mark.parametrize(("cells", "size", "accuracy"), [(20, 5, 0.9), (50, 3, 0.97)])
def test_the_interval_of_the_worst_of_many_small_groups_covers(cells: int, size: int, accuracy: float) -> None:
    rng, target = np.random.default_rng(0), np.repeat(np.arange(cells), size)
    drawn = (accuracy_intervals(rng.random(len(target)) < accuracy, target, np.zeros_like(target)) for _ in range(200))
    assert sum(low <= accuracy <= high for _, low, high in (found["worst"] for found in drawn)) >= 0.95 * 200
