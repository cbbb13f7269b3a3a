"""Histograms of activations, and nearest latents: against the slow, obvious way."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cliplens.errors import InputError
from cliplens.records import LatentTable
from cliplens.tally import tally
from cliplens_plugins.fidelity import FidelityMetric, HistogramMetric
from cliplens_plugins.fidelity.histogram import BINS, EDGES
from cliplens_plugins.fidelity.neighbours import neighbours
from support.planted import batches_of, planted_codes


def slow(values: np.ndarray) -> list[int]:
    counts = [0] * BINS
    for value in values[values > 0]:
        at = max([i for i in range(BINS) if EDGES[i] <= value], default=0)
        counts[at] += 1
    return counts


def test_counts_are_those_of_the_slow_way_and_add_up() -> None:
    planted = planted_codes(300, 4, dead=2)
    found = tally(batches_of(planted), [HistogramMetric()], decoder=None).table
    for side, codes in (("image", planted.image), ("text", planted.text)):
        expected = np.array([slow(column) for column in codes.numpy().T])
        np.testing.assert_array_equal(found[f"hist_{side}"], expected)
        np.testing.assert_array_equal(found[f"hist_{side}"].sum(1), (codes > 0).sum(0).numpy())
    assert not found["hist_image"][-2:].any()


def test_merging_in_any_order_gives_the_same_counts() -> None:
    batches = list(batches_of(planted_codes(200, 3)))
    whole, left, right = HistogramMetric(), HistogramMetric(), HistogramMetric()
    for n, batch in enumerate(batches):
        whole.update(batch)
        (left if n % 2 else right).update(batch)
    fresh = HistogramMetric()
    fresh.load_state(right.state())
    fresh.merge(left)
    for name, counts in whole.state().items():
        assert torch.equal(fresh.state()[name], counts)
    with pytest.raises(InputError, match="Expected another HistogramMetric"):
        fresh.merge(FidelityMetric())


def test_a_column_of_rows_comes_back_from_disk(tmp_path) -> None:  # type: ignore[no-untyped-def]
    found = tally(batches_of(planted_codes(100, 2)), [HistogramMetric()], decoder=None).table
    found.save(tmp_path / "latents.parquet")
    loaded = LatentTable.load(tmp_path / "latents.parquet")
    np.testing.assert_array_equal(loaded["hist_text"], found["hist_text"])
    assert loaded.schema["hist_text"].unit == "count"
    assert loaded[1]["hist_text"].shape == (BINS,)
    assert "hist_text" in loaded._repr_html_()


@given(st.integers(2, 40), st.integers(0, 100))
def test_neighbours_are_the_nearest_others(latents: int, seed: int) -> None:
    decoder = torch.randn(latents, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    nearest, cosine = neighbours(decoder, 3)
    unit = decoder / decoder.norm(dim=1, keepdim=True)
    for k in range(latents):
        others = sorted(((float(unit[k] @ unit[j]), j) for j in range(latents) if j != k), reverse=True)[:3]
        np.testing.assert_allclose(cosine[k], [c for c, _ in others], atol=1e-12)
        assert list(nearest[k]) == [j for _, j in others]
