"""Edges of the draws, pools and sums of the monosemanticity scores."""

import importlib

import numpy as np
import pytest
import torch

from cliplens.keys import hashed, pair_keys
from cliplens.records import PairedCodes, SparseCodes
from cliplens_plugins.monosemanticity.baseline import SEEDS, drawn
from cliplens_plugins.monosemanticity.embsim import embsim
from cliplens_plugins.monosemanticity.mms import mms_score
from cliplens_plugins.monosemanticity.ms import ms
from cliplens_plugins.monosemanticity.one_pass import OnePassMS
from cliplens_plugins.monosemanticity.similarity import averaged, top_samples
from cliplens_plugins.monosemanticity.sketch import FULL, Pool, TopEmbeddings, drawn_latents, most_of
from cliplens_plugins.monosemanticity.winrate import winrate

MS = importlib.import_module("cliplens_plugins.monosemanticity.ms")
"""The module; the package exports the function of the same name."""


def ids_of(n: int) -> np.ndarray:
    return pair_keys([f"p{i}" for i in range(n)])


@pytest.mark.parametrize("size", [1, 5, 39, 40, 60])
@pytest.mark.parametrize("batch", [1, 7, 40])
def test_a_pool_keeps_the_samples_with_the_smallest_hashes_in_their_order(size: int, batch: int) -> None:
    keys = ids_of(40)
    rows = torch.arange(40.0)[:, None]
    pool = Pool(size)
    for a in range(0, 40, batch):
        part = slice(a, a + batch)
        pool.update(keys[part], keys[part], rows[part])
    order = np.argsort(hashed(keys, 20))[:size]
    assert pool.rows[:, 0].tolist() == order.tolist()
    assert (pool.rank == np.sort(hashed(keys, 20))[:size]).all()
    assert (pool.keys == keys[order]).all()
    again = Pool(size)
    again.load_state(pool.state())
    assert torch.equal(again.rows, pool.rows)
    assert (again.rank == pool.rank).all()


def test_an_empty_pool_is_empty_and_takes_what_comes() -> None:
    pool = Pool(3)
    assert (pool.rank.shape, pool.keys.shape, tuple(pool.rows.shape)) == ((0,), (0,), (0, 0))
    pool.merge(Pool(3))
    assert len(pool.rank) == 0
    pool.update(ids_of(0), ids_of(0), torch.zeros(0, 2))
    assert tuple(pool.rows.shape) == (0, 0)
    other = Pool(3)
    other.update(ids_of(5), ids_of(5), torch.eye(5))
    pool.merge(other)
    assert torch.equal(pool.rows, other.rows)


def test_equal_pictures_count_once_by_the_row_with_the_smallest_hash() -> None:
    ids, keys = ids_of(6), ids_of(6)
    keys[:] = keys[0]
    keys[4:] = keys[4] + 1
    pool = Pool(10)
    pool.update(ids, keys, torch.arange(6.0)[:, None])
    rank = hashed(ids, 20)
    first = sorted((min(range(4), key=lambda i: rank[i]), min((4, 5), key=lambda i: rank[i])), key=lambda i: rank[i])
    assert pool.rows[:, 0].tolist() == first


def test_long_lists_are_kept_of_1024_latents_and_the_usual_of_the_others() -> None:
    assert FULL == 1024
    assert drawn_latents(5).tolist() == [0, 1, 2, 3, 4]
    some = drawn_latents(3000)
    assert len(some) == 1024
    assert (np.diff(some) > 0).all()
    most = most_of(3000, 50, 20)
    assert np.unique(most, return_counts=True)[1].tolist() == [3000 - 1024, 1024]
    assert (most[some] == 50).all()
    assert most_of(2000, 10, 20).tolist() == [10] * 2000


def test_baselines_are_distinct_samples_of_each_latent_and_seed() -> None:
    draws = drawn(30, 7, 4)
    assert draws.shape == (4, SEEDS, 7) == (4, 5, 7)
    assert all(len(set(d)) == 7 and min(d) >= 0 and max(d) < 30 for of in draws.tolist() for d in of)
    assert len({tuple(d) for of in draws.tolist() for d in of}) == 20
    assert (drawn(30, 7, 4, 2) == draws[:, :2]).all()
    assert drawn(7, 7, 1).shape == (1, 5, 7)
    assert drawn(6, 7, 3).shape == (3, 0, 7)
    one = np.random.default_rng([2, 3]).choice(30, 7, replace=False)
    assert (draws[3, 2] == one).all()


def test_the_strongest_samples_with_ties_in_order_and_silent_ones_left_out() -> None:
    acts = torch.tensor([[1.0, 0.0], [2.0, 0.0], [1.0, 3.0], [0.0, -1.0]])
    assert top_samples(acts, 3).tolist() == [[1, 0, 2], [2, -1, -1]]
    assert top_samples(acts, 6).tolist() == [[1, 0, 2, -1, -1, -1], [2, -1, -1, -1, -1, -1]]


def test_scores_over_more_latents_than_a_chunk_equal_those_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    g = torch.Generator().manual_seed(0)
    acts = torch.rand(40, 9, generator=g, dtype=torch.float64)
    judged = torch.randn(40, 3, generator=g, dtype=torch.float64)
    whole = [score(acts, judged, 5).tolist() for score in (embsim, winrate)]
    monkeypatch.setattr("cliplens_plugins.monosemanticity.similarity._CHUNK", 2)
    assert [score(acts, judged, 5).tolist() for score in (embsim, winrate)] == whole
    assert np.isfinite(whole).all()
    assert torch.isnan(embsim(acts, judged, 41)).all()


@pytest.mark.parametrize("block", [1, 30, 1 << 22])
@pytest.mark.parametrize("sparse", [0.0, 0.1, 2.0])
def test_ms_does_not_depend_on_blocks_or_on_the_form_of_the_product(
    block: int, sparse: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    g = torch.Generator().manual_seed(3)
    acts = torch.randn(50, 6, generator=g, dtype=torch.float64)
    acts[:, 0] = 0
    acts[1:, 1] = -3.0
    judged = torch.randn(50, 4, generator=g, dtype=torch.float64)
    expected = ms(acts, judged)
    monkeypatch.setattr(MS, "_BLOCK", block)
    monkeypatch.setattr(MS, "_SPARSE", sparse)
    torch.testing.assert_close(ms(acts, judged), expected, atol=1e-12, rtol=0, equal_nan=True)
    assert torch.isnan(expected[:2]).all()
    assert torch.isfinite(expected[2:]).all()
    assert torch.isnan(ms(acts[:0], judged[:0])).all()
    assert ms(acts[:, :0], judged).shape == (0,)


def test_one_pass_on_codes_that_always_fire_shifts_by_the_minimum() -> None:
    g = torch.Generator().manual_seed(5)
    dense = 0.5 + torch.rand(30, 4, generator=g, dtype=torch.float64)
    dense[:, 1] = 0.75
    dense[3, 2] = dense[7, 2] = 0.1
    dense[:, 3] = 0
    dense[2, 3] = 1.0
    judged = torch.nn.functional.normalize(torch.randn(30, 5, generator=g, dtype=torch.float64), dim=1)
    whole = OnePassMS()
    for part in (slice(0, 5), slice(5, 30)):
        one = OnePassMS()
        one.update(SparseCodes.from_dense(dense[part]), judged[part])
        whole.merge(one)
    torch.testing.assert_close(whole.scores(), ms(dense, judged), atol=1e-9, rtol=0, equal_nan=True)
    assert torch.isnan(whole.scores()[[1, 3]]).all()
    assert whole.state()["at_low"].dtype == torch.int64
    assert whole.state()["at_low"].tolist()[:3] == [1, 30, 2]
    fresh = OnePassMS()
    assert (fresh._low.dtype, fresh._at_low.dtype, len(fresh._low)) == (torch.float64, torch.int64, 0)
    fresh.load_state(whole.state())
    torch.testing.assert_close(fresh.scores(), whole.scores(), equal_nan=True)


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_mms_of_a_latent_that_fires_on_own_pairs_alone_is_nan_at_any_size(size: float) -> None:
    """What is left after the own pairs are taken away is rounding error, in proportion to the product of the sums."""
    one = torch.tensor([size], dtype=torch.float64)
    rows = one[:, None]
    left, kept = one * one * (1 - 1e-13), one * one * 0.5
    assert torch.isnan(mms_score(rows, rows, one, one, left, left)).all()
    torch.testing.assert_close(mms_score(rows, rows, one, one, kept, kept), torch.ones(1, dtype=torch.float64))
    assert not torch.isnan(mms_score(rows, rows, one, one, left, left, own_pairs=True)).any()


def test_the_number_of_firings_at_the_minimum_adds_up_in_any_order() -> None:
    """The parts of a latent have their minimum in the first part, in the second, in both, or fire in one part alone."""
    first = torch.tensor([[1.0, 3.0, 2.0, 0.0, 5.0], [1.0, 3.0, 4.0, 0.0, 5.0]], dtype=torch.float64)
    second = torch.tensor([[2.0, 1.0, 2.0, 7.0, 0.0], [3.0, 2.0, 2.0, 7.0, 0.0]], dtype=torch.float64)
    judged = torch.eye(2, dtype=torch.float64)
    for parts in ((first, second), (second, first)):
        whole = OnePassMS()
        for part in parts:
            whole.update(SparseCodes.from_dense(part), judged)
        assert whole.state()["low"].tolist() == [1.0, 1.0, 2.0, 7.0, 5.0]
        assert whole.state()["at_low"].tolist() == [2, 1, 3, 2, 2]
    assert len(OnePassMS().state()["at_low"]) == 0


@pytest.mark.parametrize("shift", [0.0, 2.0])
@pytest.mark.parametrize("firing", [1, 2, 3])
def test_two_samples_above_the_minimum_are_enough_and_one_is_not(shift: float, firing: int) -> None:
    """The minimum is 0 where the latent is silent on a sample, else its weakest activation."""
    g = torch.Generator().manual_seed(firing)
    dense = torch.full((4, 2), shift, dtype=torch.float64)
    dense[:firing] += 1 + torch.rand(firing, 2, generator=g, dtype=torch.float64)
    judged = torch.nn.functional.normalize(torch.randn(4, 3, generator=g, dtype=torch.float64))
    streamed = OnePassMS()
    for row in range(4):
        streamed.update(SparseCodes.from_dense(dense[[row]]), judged[[row]])
    found = streamed.scores()
    assert torch.isnan(found).tolist() == [firing < 2] * 2
    torch.testing.assert_close(found, ms(dense, judged), atol=1e-12, rtol=0, equal_nan=True)


@pytest.mark.parametrize(("spread", "resolved"), [(5e-5, False), (8e-5, True)])
@pytest.mark.parametrize("low", [1e-3, 1.0, 1e3])
def test_a_spread_that_rounding_could_make_is_no_spread(spread: float, resolved: bool, low: float) -> None:
    """Half the samples lie above the minimum by `spread`: the mean square above it is half its square."""
    dense = torch.tensor([[low], [low * (1 + spread)]] * 10, dtype=torch.float64)
    metric = OnePassMS()
    metric.update(SparseCodes.from_dense(dense), torch.tensor([[1.0]] * 20, dtype=torch.float64))
    assert bool(torch.isnan(metric.scores()[0])) != resolved


def test_latents_of_no_sample_and_silent_ones_have_no_score_and_no_rows() -> None:
    metric = OnePassMS()
    metric.update(SparseCodes.from_dense(torch.zeros(0, 2)), torch.zeros(0, 3, dtype=torch.float64))
    assert torch.isnan(metric.scores()).all()
    metric.update(SparseCodes.from_dense(torch.zeros(4, 2)), torch.ones(4, 3, dtype=torch.float64))
    assert torch.isnan(metric.scores()).all()
    kept = TopEmbeddings("image", 5, 5)
    kept.update(PairedCodes(("a", "b"), SparseCodes.from_dense(torch.zeros(2, 3)), None), torch.eye(2))
    assert kept.samples.ids == ()
    assert len(kept.rows()[0]) == len(kept.rows()[1]) == 0


@pytest.mark.parametrize(
    ("rows", "columns", "known"),
    [([0, 1], [0, 1], True), ([0, -1], [0, 1], False), ([0, 1], [1, -1], False), ([-1, -1], [-1, -1], False)],
)
def test_a_score_needs_all_top_samples_on_both_sides(rows: list[int], columns: list[int], known: bool) -> None:
    alike = np.array([[0.9, 0.3], [0.2, 0.7]])
    pool = np.array([[1.0, 0.5, 0.1], [0.5, 1.0, 0.4], [0.1, 0.4, 1.0]])
    found = averaged(
        {"": lambda plus, minus: plus - minus},
        (np.array([rows, [0, 1]]), np.array([columns, [0, 1]])),
        lambda i, j: np.stack([alike[a][:, b] for a, b in zip(i, j, strict=True)]),
        pool,
        np.array([[[0, 1], [1, 2]]] * 2),
    )[""]
    expected = (0.3 + 0.2) / 2 - (0.5 + 0.4) / 2
    assert found[1] == pytest.approx(expected)
    assert (found[0] == pytest.approx(expected)) if known else np.isnan(found[0])
