"""The search for the largest values, bounded by a sample, finds those of a full ranking."""

import pytest
import torch
from torch import Tensor

from cliplens.sae.architectures import ranking
from cliplens.sae.architectures.ranking import Ranked, candidates_of_batch, strongest, strongest_of_rows


def of_all(values: Tensor, count: int) -> Tensor:
    return values.flatten().topk(count).indices.sort().values


def of_rows(values: Tensor, k: int) -> Tensor:
    rows = torch.arange(len(values))[:, None] * values.shape[1]
    return (values.topk(k, dim=-1).indices.sort(dim=-1).values + rows).flatten()


def drawn(seed: int, rows: int, columns: int, skew: float = 0.0) -> Ranked:
    """Return products, biases and norms; `skew` makes a few latents far larger than the others."""
    g = torch.Generator().manual_seed(seed)
    scale = torch.exp(skew * torch.randn(columns, generator=g))
    norm = torch.rand(columns, generator=g) * 3
    norm[::97] = 0.0
    return Ranked(
        torch.randn(rows, columns, generator=g) * scale, torch.randn(columns, generator=g), norm if seed % 2 else None
    )


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("skew", [0.0, 3.0])
@pytest.mark.parametrize("shape", [(64, 2048), (33, 4099)])
def test_the_bounded_search_finds_what_a_full_ranking_finds(seed: int, skew: float, shape: tuple[int, int]) -> None:
    ranked = drawn(seed, *shape, skew)
    dense = ranked.rows(slice(None))
    count = shape[0] * 8
    assert candidates_of_batch(ranked, count) is not None or skew
    assert torch.equal(strongest(ranked, count), of_all(dense, count))
    assert torch.equal(strongest_of_rows(ranked, 8), of_rows(dense, 8))


@pytest.mark.parametrize("count", [1, 5, 60, 299, 4096, 2**13 + 1])
def test_any_count_is_that_of_all_values(count: int) -> None:
    ranked = drawn(count, 512, 256)
    assert torch.equal(strongest(ranked, count), of_all(ranked.rows(slice(None)), count))


def test_values_equal_the_dense_ones_to_the_bit() -> None:
    ranked = drawn(1, 16, 512)
    dense = ranked.rows(slice(None))
    assert torch.equal(dense, (ranked.product + ranked.bias) * ranked.norm)
    flat = torch.tensor([0, 5, 511, 512, 8191])
    assert torch.equal(ranked.at(flat), dense.flatten()[flat])
    assert torch.equal(ranked.columns(torch.tensor([3, 9])), (ranked.product + ranked.bias)[:, [3, 9]])


def test_a_value_at_the_bound_is_a_candidate_whatever_the_rounding() -> None:
    ranked = drawn(3, 256, 1024)
    dense = ranked.rows(slice(None))
    for bound in dense.flatten()[::4001]:
        kept = ~(ranked.product < ranked.bounded(bound))
        assert bool(kept[dense >= bound].all())
        silent = int((ranked.norm == 0).sum()) * len(dense)  # a norm of 0 bounds nothing
        assert int(kept.sum()) <= int((dense >= bound).sum()) + silent + 3


def test_few_values_or_many_wanted_are_ranked_at_once() -> None:
    ranked = drawn(0, 512, 256)
    assert candidates_of_batch(Ranked(ranked.product[:255]), 100) is None
    assert candidates_of_batch(ranked, 2**13 + 1) is None
    found = candidates_of_batch(ranked, 4096)
    assert found is not None
    assert len(found) >= 4096
    assert torch.equal(found, found.sort().values)


def test_a_misjudged_bound_falls_back_to_a_full_ranking() -> None:
    values = torch.zeros(64, 2048)
    values.view(-1)[torch.arange(0, 64 * 2048, 509)] = 1.0  # the sample sees ones only
    found = strongest(Ranked(values), 4000)
    assert len(found.unique()) == 4000
    assert int((values.flatten()[found] == 1).sum()) == int((values == 1).sum())
    rows = torch.zeros(64, 2048)
    rows[:, ::16] = torch.arange(1.0, 129.0)
    rows[1] = torch.nan
    rows[2] = -torch.inf
    found = strongest_of_rows(Ranked(rows), 8).view(64, 8)
    assert found[0].tolist() == [16 * n for n in range(120, 128)]
    assert torch.equal(found // 2048, torch.arange(64)[:, None].expand(64, 8))
    assert all(len(row.unique()) == 8 for row in found)


@pytest.mark.parametrize("at", [0, 509, 700])
def test_a_nan_is_among_the_largest(at: int) -> None:
    ranked = drawn(0, 64, 2048)
    ranked.product.view(-1)[at] = torch.nan
    assert at in strongest(ranked, 512)
    assert at in strongest_of_rows(ranked, 8)


def test_the_strongest_of_each_row_stay_in_their_row() -> None:
    rows = torch.randn(7, 11, generator=torch.Generator().manual_seed(0))
    assert torch.equal(strongest_of_rows(Ranked(rows), 3), of_rows(rows, 3))


@pytest.mark.parametrize(
    ("shape", "count", "pays"),
    [((16, 4096), 4096, True), ((16, 4096), 4097, False), ((15, 4096), 1, False), ((17, 4096), 1, True)],
)
def test_a_bound_pays_from_2_to_the_16_values_on_for_up_to_a_16th_of_them(
    shape: tuple[int, int], count: int, pays: bool
) -> None:
    assert (candidates_of_batch(drawn(0, *shape), count) is not None) == pays


@pytest.mark.parametrize("count", [64, 512, 4096])
def test_few_more_than_are_wanted_are_candidates(count: int) -> None:
    """A sample of one in 509 is taken; twice as many as are wanted exceed its bound, and some 32 strides more."""
    g = torch.Generator().manual_seed(count)
    found = candidates_of_batch(Ranked(torch.randn(256, 1024, generator=g)), count)
    assert found is not None
    assert 2 * count + 16 * 509 < len(found) < 2 * count + 64 * 509


@pytest.mark.parametrize(("k", "bounded"), [(16, True), (17, False)])
def test_rows_are_bounded_block_by_block_where_few_of_a_row_are_wanted(
    k: int, bounded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts: list[slice] = []
    of_block, flat = ranking._of_block, ranking._flat
    whole: list[int] = []

    def noted(ranked: Ranked, part: slice, k: int) -> Tensor:
        parts.append(part)
        return of_block(ranked, part, k)

    monkeypatch.setattr(ranking, "_of_block", noted)
    monkeypatch.setattr(ranking, "_flat", lambda latents, d_sae: whole.append(len(latents)) or flat(latents, d_sae))
    monkeypatch.setattr(ranking, "_BLOCK", 5000)
    ranked = drawn(2, 70, 1024)
    assert torch.equal(strongest_of_rows(ranked, k), of_rows(ranked.rows(slice(None)), k))
    assert parts == ([slice(start, start + 4) for start in range(0, 70, 4)] if bounded else [])
    assert whole == ([] if bounded else [70])


def test_a_block_is_never_less_than_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking, "_BLOCK", 100)
    ranked = drawn(4, 70, 1024)
    assert torch.equal(strongest_of_rows(ranked, 4), of_rows(ranked.rows(slice(None)), 4))


def test_rows_with_fewer_values_beyond_the_bound_than_wanted_are_ranked_whole() -> None:
    """The sampled values are the largest, so that seven exceed the bound where eight are wanted, in a few rows."""
    rows = torch.randn(64, 2048, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows[::9, ::16] += 100
    assert torch.equal(strongest_of_rows(Ranked(rows), 8), of_rows(rows, 8))
    wide = torch.randn(64, 2048, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    wide[5, torch.arange(2048) % 16 > 0] += 100  # most exceed the bound of the sample
    assert torch.equal(strongest_of_rows(Ranked(wide), 8), of_rows(wide, 8))
