"""AUROC, intervals, bootstrap weights and the false discovery rate, each against its slow definition or a library."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from cliplens.statistics import (
    auroc,
    auroc_interval,
    benjamini_hochberg,
    mean_and_deviation,
    mean_interval,
    percentile_interval,
    poisson_weights,
    wilson_interval,
)

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
