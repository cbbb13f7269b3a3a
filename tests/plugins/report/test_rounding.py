"""Numbers of the page: five significant digits, as text formatting gives them."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cliplens_plugins.report.rounding import rounded


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_a_number_is_what_formatting_gives_but_for_halves(value: float) -> None:
    found = rounded(np.array(value))
    if not math.isfinite(value):
        assert found is None
        return
    expected = float(f"{value:.5g}")
    if math.isinf(expected):  # the largest numbers stay as they are
        assert found == value
    elif found != expected:  # a half may be rounded to the other side
        size = math.floor(math.log10(abs(value)))
        assert abs(found - expected) <= 1.01 * 10.0 ** (size - 4)
        assert abs(abs(value / 10.0 ** (size - 4) % 1) - 0.5) < 1e-6
    assert len(f"{abs(found):.17g}") < 24


def test_it_prints_with_no_more_digits() -> None:
    values = np.random.default_rng(0).normal(size=2000) * 10.0 ** np.random.default_rng(1).integers(-12, 12, 2000)
    assert rounded(values) == [float(f"{v:.5g}") for v in values]


@pytest.mark.parametrize("value", [0.0, -0.0, 1.0, 1e-300, -1e300, 99999.5, 0.1, 1000.0, 5e-324])
def test_edges(value: float) -> None:
    assert rounded(np.array([value])) == [float(f"{value:.5g}")]


def test_rows_stay_rows_and_what_is_not_finite_is_none() -> None:
    assert rounded(np.array([[1.0, np.nan], [np.inf, 2.123456]])) == [[1.0, None], [None, 2.1235]]
    assert rounded(np.zeros((0, 3))) == []
    assert rounded(np.array([1.5], dtype=np.float32)) == [1.5]


def test_the_largest_numbers_stay_finite() -> None:
    largest = np.finfo(np.float64).max
    assert rounded(np.array([largest, -largest])) == [largest, -largest]
