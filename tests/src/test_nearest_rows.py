"""Nearest rows by cosine equal their definition, also among many rows and among some of them."""

import numpy as np
import pytest
import torch

from cliplens import arrays
from cliplens.arrays import nearest_rows
from cliplens.errors import NonFiniteError


@pytest.mark.parametrize("many", [10**9, 8])
@pytest.mark.parametrize("among", [None, [4, 7, 8, 20, 33, 34, 35, 36, 37, 38]])
def test_nearest_rows_equal_their_definition(
    many: int, among: list[int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrays, "_MANY_ROWS", many)
    monkeypatch.setattr(arrays, "_SPARE", 2)
    rows = torch.from_numpy(np.random.default_rng(0).normal(size=(40, 5)))
    unit = torch.nn.functional.normalize(rows, dim=1)
    cosine = (unit @ unit.T).numpy()
    allowed = range(40) if among is None else among
    given = None if among is None else np.array(among)
    near, value = nearest_rows(rows, 3, among=given, block=16)
    for k in range(40):
        best = sorted((j for j in allowed if j != k), key=lambda j: -cosine[k, j])[:3]
        assert near[k].tolist() == best
        np.testing.assert_allclose(value[k], cosine[k, best], atol=1e-12)


@pytest.mark.parametrize("among", [None, np.arange(0, 3000, 2)])
def test_of_many_rows_few_are_in_float64_at_a_time(among: np.ndarray | None, monkeypatch: pytest.MonkeyPatch) -> None:
    widest, plain = 0, arrays.as_double

    def watched(values: torch.Tensor, name: str, axes: tuple[str, ...]) -> torch.Tensor:
        nonlocal widest
        widest = max(widest, len(values))
        return plain(values, name, axes)

    monkeypatch.setattr(arrays, "_MANY_ROWS", 1000)
    monkeypatch.setattr(arrays, "_SPARE", 2)
    monkeypatch.setattr(arrays, "as_double", watched)
    nearest_rows(torch.randn(3000, 4, generator=torch.Generator().manual_seed(0)), 3, among=among, block=200)
    assert 0 < widest <= 128 * (3 + 2)


def test_there_are_no_more_columns_than_other_rows() -> None:
    assert nearest_rows(torch.eye(3), 5)[0].shape == (3, 2)
    assert nearest_rows(torch.eye(3), 5, among=np.array([1]))[0].shape == (3, 0)
    assert nearest_rows(torch.eye(1), 5)[0].shape == (1, 0)


def test_rows_that_float32_cannot_tell_apart_are_ordered_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "_MANY_ROWS", 2)
    angle = torch.tensor([0.0, 3e-6, 2e-6, 1e-6, 1.0], dtype=torch.float64)
    near, _ = nearest_rows(torch.stack([angle.cos(), angle.sin()], 1), 3)
    assert near[0].tolist() == [3, 2, 1]


@pytest.mark.parametrize("n", [1, 2, 7, 64, 65, 200])
@pytest.mark.parametrize("kept", [1, 6])
def test_a_tile_of_products_serves_its_rows_and_its_columns(n: int, kept: int) -> None:
    rows = torch.nn.functional.normalize(torch.randn(n, 8, generator=torch.Generator().manual_seed(n)), dim=1)
    kept = min(kept, n - 1)
    found = arrays._likely_of_all(rows, kept, tile=32)
    expected = (rows @ rows.T).fill_diagonal_(-torch.inf).topk(kept, dim=1).indices
    assert torch.equal(found.sort(dim=1).values, expected.sort(dim=1).values)


def test_rows_with_nan_have_no_neighbours() -> None:
    rows = torch.randn(8, 3)
    rows[2, 1] = torch.nan
    with pytest.raises(NonFiniteError, match="finite numbers as rows"):
        nearest_rows(rows, 2)
