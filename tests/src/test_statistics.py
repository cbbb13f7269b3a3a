"""AUROC, intervals, bootstrap weights and the false discovery rate, each against its slow definition or a library."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, norm, poisson

from cliplens.keys import hashed
from cliplens.statistics import (
    auroc,
    auroc_interval,
    benjamini_hochberg,
    exact_interval,
    mean_and_deviation,
    mean_difference,
    mean_interval,
    mean_share_interval,
    percentile_interval,
    poisson_weights,
    ratio_difference,
    share_difference,
    wilson_interval,
)
from cliplens.statistics.bootstrap import MANY, _table

NAN = float("nan")


@given(st.lists(st.floats(-9, 9), min_size=1, max_size=20), st.lists(st.floats(-9, 9), min_size=1, max_size=20))
def test_auroc_equals_its_definition(up: list[float], down: list[float]) -> None:
    slow = np.mean([1.0 if u > d else 0.5 if u == d else 0.0 for u in up for d in down])
    assert auroc(up, down) == pytest.approx(slow, abs=1e-12)
    assert auroc(up, down) + auroc(down, up) == pytest.approx(1, abs=1e-12)


def test_auroc_without_samples_or_with_nan_is_nan() -> None:
    assert np.isnan(auroc([], [1.0]))
    assert np.isnan(auroc([1.0], [NAN]))
    assert np.isnan(auroc_interval(NAN, 3, 3)).all()


@pytest.mark.parametrize(("hits", "n"), [(0, 1), (0, 9), (3, 9), (20, 20), (499, 1000)])
def test_wilson_interval_equals_scipys(hits: int, n: int) -> None:
    exact = binomtest(hits, n).proportion_ci(method="wilson")
    low, high = wilson_interval(hits / n, n)
    assert (float(low), float(high)) == pytest.approx((exact.low, exact.high), abs=1e-12)


def test_exact_intervals_equal_scipys() -> None:
    hits, n = np.array([0.0, 1, 5, 9, 10, 3]), np.array([10.0, 10, 10, 10, 10, 3])
    for level in (0.5, 0.95, 0.9995):
        found = exact_interval(hits, n, level)
        expected = [binomtest(int(k), int(m)).proportion_ci(level) for k, m in zip(hits, n, strict=True)]
        np.testing.assert_allclose(np.array(found).T, expected, atol=1e-9)


def test_wilson_interval_of_no_samples_is_nan() -> None:
    low, high = wilson_interval(np.array([0.5, 0.5]), np.array([0.0, 4.0]))
    assert np.isnan(low).tolist() == np.isnan(high).tolist() == [True, False]


def test_poisson_weights_depend_on_the_key_alone_and_have_mean_and_variance_one() -> None:
    keys = np.arange(4000, dtype=np.uint64)
    weights = poisson_weights(keys, 100)
    np.testing.assert_array_equal(poisson_weights(keys[::-1], 100)[::-1], weights)
    assert weights.mean() == pytest.approx(1, abs=0.01)
    assert weights.var() == pytest.approx(1, abs=0.02)


def test_percentile_interval_leaves_out_replicates_that_are_nan() -> None:
    drawn = np.array([[0.0, 1.0, 2.0, NAN], [NAN, NAN, NAN, NAN]])
    low, high = percentile_interval(drawn, 0.5)
    assert (low[0], high[0]) == (0.0, 2.0)
    assert np.isnan([low[1], high[1]]).all()


def test_benjamini_hochberg_equals_its_definition_and_leaves_nan() -> None:
    p = np.array([0.03, NAN, 0.01, 0.5, 0.04])
    known = np.sort(p[~np.isnan(p)])
    slow = [min(known[j] * len(known) / (j + 1) for j in range(i, len(known))) for i in range(len(known))]
    q = benjamini_hochberg(p)
    assert np.isnan(q).tolist() == np.isnan(p).tolist()
    np.testing.assert_allclose(np.sort(q[~np.isnan(q)]), slow)


def test_mean_and_deviation_of_nothing_is_nan() -> None:
    assert np.isnan(mean_and_deviation([])).all()
    assert mean_and_deviation([1.0, 3.0]) == (2.0, 1.0)
    assert np.isnan(mean_interval(np.array([NAN]))).all()


@pytest.mark.parametrize("score", [0.0, 0.3, 0.5, 0.82, 1.0])
@pytest.mark.parametrize(("m", "n"), [(5, 5), (7, 40), (60, 200)])
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_limits_of_an_auroc_lie_where_their_own_variance_puts_them(score: float, m: int, n: int, level: float) -> None:
    """Newcombe's method 5, written out: Hanley and McNeil's variance at the limit, with m and n replaced by N*."""
    low, high = auroc_interval(score, m, n, level)
    half = (m + n) / 2 - 1
    for limit, end in ((low, 0.0), (high, 1.0)):
        assert 0 <= low <= score <= high <= 1
        if score == end:
            assert limit == end
            continue
        variance = limit * (1 - limit) / (m * n)
        variance *= 1 + half * (1 - limit) / (2 - limit) + half * limit / (1 + limit)
        assert abs(score - limit) == pytest.approx(norm.ppf(0.5 + level / 2) * variance**0.5, abs=1e-9)
    assert (low < score) == (score > 0)
    assert (high > score) == (score < 1)


@pytest.mark.parametrize(("score", "m", "n"), [(0.5, 0, 3), (0.5, 3, 0), (NAN, 3, 3)])
def test_an_auroc_of_nothing_has_no_interval(score: float, m: int, n: int) -> None:
    assert np.isnan(auroc_interval(score, m, n)).all()


@pytest.mark.parametrize("replicates", [1, 3, 4, 9])
def test_poisson_weights_are_quantiles_of_hashed_sixteen_bits(replicates: int) -> None:
    keys = hashed(np.arange(5, dtype=np.uint64), 9)
    found = poisson_weights(keys, replicates, seed=3)
    assert found.shape == (5, replicates)
    for row, key in enumerate(keys.tolist()):
        for r in range(replicates):
            lane = int(hashed(np.array([r // 4], dtype=np.uint64), 3)[0])
            word = int(hashed(np.array([key ^ lane], dtype=np.uint64), 3)[0])
            bits = (word >> (16 * (r % 4))) & 0xFFFF
            assert found[row, r] == poisson.ppf((bits + 0.5) / 65536, 1.0)


def test_weights_of_another_seed_are_others() -> None:
    keys = np.arange(50, dtype=np.uint64)
    assert (poisson_weights(keys, 8, seed=1) != poisson_weights(keys, 8, seed=2)).any()
    assert poisson_weights(keys).shape == (50, 200)


@pytest.mark.parametrize("level", [0.5, 0.95])
def test_percentile_intervals_are_weibulls_quantiles_row_by_row(level: float) -> None:
    drawn = np.random.default_rng(0).normal(size=(4, 40))
    drawn[2, 5:] = NAN
    low, high = percentile_interval(drawn, level)
    for row in range(4):
        known = drawn[row][~np.isnan(drawn[row])]
        tails = np.quantile(known, [(1 - level) / 2, (1 + level) / 2], method="weibull")
        assert (low[row], high[row]) == pytest.approx(tuple(tails), abs=1e-12)
    assert percentile_interval(drawn)[0].tolist() == percentile_interval(drawn, 0.95)[0].tolist()


@pytest.mark.parametrize(("level", "draws", "seed"), [(0.5, 300, 1), (0.95, 2000, 0)])
def test_the_interval_of_a_mean_is_that_of_resampled_means(level: float, draws: int, seed: int) -> None:
    values = np.array([0.0, 1.0, NAN, 5.0, 2.0])
    mean, low, high = mean_interval(values, level, draws, seed)
    known, rng = values[~np.isnan(values)], np.random.default_rng(seed)
    resampled = [np.mean([known[place] for place in places]) for places in rng.integers(0, 4, (draws, 4))]
    assert mean == known.mean() == 2.0
    assert (low, high) == pytest.approx(tuple(np.quantile(resampled, [0.5 - level / 2, 0.5 + level / 2])), abs=1e-12)
    if (level, draws, seed) == (0.95, 2000, 0):
        assert mean_interval(values) == (mean, low, high)


@pytest.mark.parametrize(("level", "draws", "seed"), [(0.5, 300, 1), (0.95, 1000, 0)])
def test_the_interval_of_a_difference_is_that_of_resampled_differences(level: float, draws: int, seed: int) -> None:
    a, b = np.array([1.0, NAN, 4.0, 7.0]), np.array([0.0, 1.0])
    difference, low, high = mean_difference(a, b, level, draws, seed)
    rng = np.random.default_rng(seed)
    sides = [x[rng.integers(0, len(x), (draws, len(x)))].mean(axis=1) for x in (np.array([1.0, 4.0, 7.0]), b)]
    assert difference == 3.5
    expected = np.quantile(sides[0] - sides[1], [0.5 - level / 2, 0.5 + level / 2])
    assert (low, high) == pytest.approx(tuple(expected), abs=1e-12)
    if (level, draws, seed) == (0.95, 1000, 0):
        assert mean_difference(a, b) == (difference, low, high)


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_the_difference_of_shares_is_squared_and_added_from_wilsons(level: float) -> None:
    found = share_difference(3, 10, 9, 12, level)
    (la, ua), (lb, ub) = (wilson_interval(s, n, level) for s, n in ((0.3, 10), (0.75, 12)))
    d = 0.3 - 0.75
    below, above = ((0.3 - la) ** 2 + (ub - 0.75) ** 2) ** 0.5, ((ua - 0.3) ** 2 + (0.75 - lb) ** 2) ** 0.5
    assert found == pytest.approx((d, d - below, d + above), abs=1e-12)
    assert share_difference(3, 10, 9, 12) == share_difference(3, 10, 9, 12, 0.95)
    assert np.isnan(share_difference(0, 4, 0, 0)).all()


@pytest.mark.parametrize("level", [0.5, 0.95])
def test_wilsons_interval_at_any_level_is_scipys(level: float) -> None:
    exact = binomtest(4, 11).proportion_ci(confidence_level=level, method="wilson")
    low, high = wilson_interval(4 / 11, 11, level)
    assert (float(low), float(high)) == pytest.approx((exact.low, exact.high), abs=1e-12)
    assert wilson_interval(4 / 11, 11)[0] == wilson_interval(4 / 11, 11, 0.95)[0]


def test_aurocs_are_nan_where_either_side_is_empty_or_unknown() -> None:
    for up, down in (([], [1.0]), ([1.0], []), ([NAN, 1.0], [1.0]), ([1.0], [0.0, NAN])):
        assert np.isnan(auroc(up, down))


def test_benjamini_hochberg_of_nothing_known_is_nan() -> None:
    assert np.isnan(benjamini_hochberg(np.array([NAN, NAN]))).all()
    assert len(benjamini_hochberg(np.zeros(0))) == 0


def test_the_interval_of_the_mean_of_many_values_is_the_bootstraps_within_its_random_error() -> None:
    values = np.random.default_rng(0).beta(5, 1, MANY)
    mean, low, high = mean_interval(values)
    drawn = values[np.random.default_rng(1).integers(0, MANY, (4000, MANY))].mean(axis=1)
    error = values.std() / MANY**0.5
    assert mean == values.mean()
    assert (low, high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=0.15 * error)
    few = mean_interval(values[1:])
    assert few[1] != pytest.approx(low, abs=1e-9)
    assert few == pytest.approx((mean, low, high), abs=0.2 * error)


def test_a_difference_of_ratios_is_that_of_the_sums_within_its_interval() -> None:
    g = np.random.default_rng(0)
    values, control = g.gamma(2, size=(2, 200)), g.gamma(2, size=(2, 200))
    difference, low, high = ratio_difference(values, control)
    assert difference == pytest.approx(values[0].sum() / values[1].sum() - control[0].sum() / control[1].sum())
    assert low < difference < high
    drawn = np.random.default_rng(0).integers(0, 200, (4000, 200))
    each = [[side[0][rows].sum() / side[1][rows].sum() for rows in drawn] for side in (values, control)]
    slow = np.quantile(np.subtract(*each), [0.025, 0.975])
    np.testing.assert_allclose(ratio_difference(values, control, draws=4000), [difference, *slow], rtol=1e-12)
    narrow = ratio_difference(values, control, level=0.5)
    assert low < narrow[1] < narrow[2] < high


@pytest.mark.parametrize("nothing", [np.zeros((2, 0)), np.array([[1.0, 2.0], [0.0, 0.0]])])
def test_a_difference_of_ratios_without_a_denominator_is_nan(nothing: np.ndarray) -> None:
    some = np.ones((2, nothing.shape[1]))
    for pair in ((nothing, some), (some, nothing)):
        assert len(ratio_difference(*pair)) == 3
        assert np.isnan(ratio_difference(*pair)).all()


@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
def test_wilsons_interval_stays_within_0_and_1_at_both_ends(level: float) -> None:
    """Rounding alone would put the limit of a share of 0 or 1 a little beyond them at some n."""
    n = np.arange(1.0, 400.0)
    low, high = wilson_interval(np.zeros_like(n), n, level)
    assert (low >= 0).all()
    np.testing.assert_allclose(low, 0, atol=1e-15)
    mirrored = wilson_interval(np.ones_like(n), n, level)
    assert (mirrored[1] <= 1).all()
    np.testing.assert_allclose(mirrored[0], 1 - high, rtol=1e-12)
    np.testing.assert_allclose(mirrored[1], 1, atol=1e-15)


def test_the_table_of_weights_is_the_quantile_function_of_poisson_in_steps_of_a_65536th() -> None:
    table = _table.__wrapped__()  # not the one kept in memory
    assert table.shape == (65536,)
    reached = poisson.cdf(np.arange(30), 1.0)
    for place in (0, 1, 24108, 24109, 24110, 48218, 48219, 60273, 60274, 65534, 65535):
        assert table[place] == np.argmax(reached >= (place + 0.5) / 65536)
    assert table.mean() == pytest.approx(1.0, abs=1e-4)
    assert (np.diff(table) >= 0).all()


@pytest.mark.parametrize("repetitions", [3, 5])
@pytest.mark.parametrize(("count", "share"), [(5, 0.03), (5, 0.3), (30, 0.03), (30, 0.97), (150, 0.3)])
@pytest.mark.parametrize("apart", [0.0, 0.05])
def test_the_interval_of_a_mean_of_shares_covers_the_truth_and_stays_in_range(
    repetitions: int, count: int, share: float, apart: float
) -> None:
    """Shares of latents over seeds: binomial, with seeds alike or as far apart as a correlation of .05."""
    rng, covered, trials = np.random.default_rng(count), 0, 1500 if count < 100 else 500
    known: dict[tuple[int, ...], tuple[float, float, float]] = {}  # by the hits, whose order does not matter
    scale = (1 - apart) / apart if apart else 0.0
    for _ in range(trials):
        true = rng.beta(share * scale, (1 - share) * scale, repetitions) if apart else np.full(repetitions, share)
        hits = np.sort(rng.binomial(count, true))
        if tuple(hits) not in known:
            known[tuple(hits)] = mean_share_interval(hits / count, np.full(repetitions, float(count)))
        mean, low, high = known[tuple(hits)]
        assert 0 <= low <= mean <= high <= 1
        assert high - low > 0
        covered += low <= share <= high
    assert covered / trials > 0.9


def test_the_interval_of_a_mean_of_shares_is_wilsons_where_the_repetitions_agree() -> None:
    mean, low, high = mean_share_interval(np.array([0.2, 0.2]), np.array([10.0, 30.0]))
    assert mean == pytest.approx(0.2)
    assert (low, high) == pytest.approx(tuple(map(float, wilson_interval(0.2, 40))))
    mean, low, high = mean_share_interval(np.array([0.1, 0.5]), np.array([10.0, 30.0]))
    swapped = mean_share_interval(1 - np.array([0.1, 0.5, np.nan]), np.array([10.0, 30.0, 5.0]))
    assert swapped == pytest.approx((1 - mean, 1 - high, 1 - low))


def test_the_interval_of_a_mean_of_shares_needs_two() -> None:
    assert np.isnan(mean_share_interval(np.array([0.5, np.nan]), np.array([4.0, 4.0]))).tolist() == [False, True, True]
    assert np.isnan(mean_share_interval(np.array([]), np.array([]))).all()


@pytest.mark.parametrize(("hits", "n", "control_hits", "control_n"), [(0, 0, 1, 2), (1, 2, 0, 0), (0, 0, 0, 0)])
def test_the_difference_of_shares_of_nothing_is_three_times_nan(
    hits: int, n: int, control_hits: int, control_n: int
) -> None:
    found = share_difference(hits, n, control_hits, control_n)
    assert len(found) == 3
    assert np.isnan(found).all()
    nothing = np.zeros(0)
    for empty in (mean_interval(nothing), mean_difference(nothing, np.ones(2)), mean_difference(np.ones(2), nothing)):
        assert len(empty) == 3
        assert np.isnan(empty).all()
    ratios = ratio_difference(np.zeros((2, 3)), np.ones((2, 3)))
    assert len(ratios) == 3
    assert np.isnan(ratios).all()


def test_wilson_limits_of_no_and_all_hits_hold_the_share_itself() -> None:
    for n in range(1, 400):
        low, high = wilson_interval(np.array([0.0, 1.0]), n)
        assert (low[0], high[1]) == (0.0, 1.0), n


def test_the_limits_of_a_difference_of_shares_lie_between_minus_one_and_one() -> None:
    for n in range(1, 60):
        assert share_difference(0, n, n, n)[1] == -1.0
        assert share_difference(n, n, 0, n)[2] == 1.0
