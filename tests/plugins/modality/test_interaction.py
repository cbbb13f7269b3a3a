"""Bridges, the gap, and causal ablation."""

from importlib import import_module

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cliplens.errors import InputError
from cliplens.keys import hashed, pair_keys
from cliplens.records import PairedCodes, SparseCodes
from cliplens.tally import tally
from cliplens_plugins.modality import (
    BridgeMetric,
    bridge,
    causal_effect,
    classify_fixed,
    draw,
    mds,
    modality_gap,
    without_latents,
)
from cliplens_plugins.modality.causal import pair_log_probability
from cliplens_plugins.modality.draw import PairsDraw
from support.planted import Planted, batches_of, planted_codes


def test_the_sparse_bridge_equals_the_whole_one() -> None:
    planted = planted_codes(500, 8)
    decoder = torch.randn(24, 10, generator=torch.Generator().manual_seed(0))
    whole = bridge(planted.image, planted.text, decoder).numpy()
    slow = np.array(
        [
            [
                float((planted.image[:, j] * planted.text[:, k]).mean() * (decoder[j].double() @ decoder[k].double()))
                for k in range(24)
            ]
            for j in range(24)
        ]
    )
    np.testing.assert_allclose(whole, slow, atol=1e-12)
    found = tally(batches_of(planted, 64), [BridgeMetric()], decoder=decoder)
    found_classes = classify_fixed(mds(planted.image, planted.text))
    image, text = found_classes == "ImgD", found_classes == "TextD"
    between = np.where(planted.image.T @ planted.text > 0, whole, -np.inf)[np.ix_(image, text)]
    for side, other, axis in ((image, text, 1), (text, image, 0)):
        best, partner = between.max(axis), np.flatnonzero(other)[between.argmax(axis)]
        assert np.isfinite(best).any()
        np.testing.assert_allclose(found.table["bridge"][side], np.where(np.isinf(best), np.nan, best), atol=1e-12)
        assert found.table["bridge_partner"][side].tolist() == np.where(np.isinf(best), -1, partner).tolist()
    assert (found.table["bridge_partner"][found_classes == "CrossD"] == -1).all()
    rows = found.tables["Strongest bridges from images to captions"]
    assert rows[0]["bridge"] == pytest.approx(between.max())


def test_bridges_are_multiplied_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = torch.randn(24, 10, generator=torch.Generator().manual_seed(0))

    def strengths() -> np.ndarray:
        return tally(batches_of(planted_codes(500, 8), 64), [BridgeMetric()], decoder=decoder).table["bridge"]

    whole, widest = strengths(), 0
    plain = np.einsum

    def watched(how: str, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        nonlocal widest
        widest = max(widest, len(left))
        return plain(how, left, right)

    monkeypatch.setattr(import_module("cliplens_plugins.modality.bridge"), "_PAIRS", 3)
    monkeypatch.setattr(np, "einsum", watched)
    np.testing.assert_array_equal(strengths(), whole)
    assert widest == 3


def slow_draw(planted: Planted, firings: int) -> np.ndarray:
    """Which pairs are in the draw: by hashed id, while they fit."""
    kept, used = [], 0
    for row in np.argsort(hashed(pair_keys(planted.ids), draw._SEED)):
        used += int((planted.image[row] != 0).sum() + (planted.text[row] != 0).sum())
        if used > firings:
            break
        kept.append(row)
    return np.sort(kept)


def test_beyond_its_budget_the_bridge_is_that_of_a_uniform_draw() -> None:
    planted = planted_codes(900, 8)
    decoder = torch.randn(24, 10, generator=torch.Generator().manual_seed(0))
    metric = BridgeMetric(300)
    for batch in batches_of(planted, 64):
        metric.update(batch)
    rows = slow_draw(planted, 300)
    assert 100 < len(rows) < 500
    found = metric.findings(decoder)
    assert found.figures["bridge_pairs"] == len(rows)
    whole = bridge(planted.image[rows], planted.text[rows], decoder).numpy()
    image = np.flatnonzero(found.columns["bridge_partner"] >= 0)
    partner = found.columns["bridge_partner"][image]
    classes = classify_fixed(mds(planted.image, planted.text))
    expected = [whole[a, b] if classes[a] == "ImgD" else whole[b, a] for a, b in zip(image, partner, strict=True)]
    np.testing.assert_allclose(found.columns["bridge"][image], expected, atol=1e-12)


@pytest.mark.parametrize("firings", [150, 1 << 22])
@given(seed=st.integers(0, 1000), size=st.integers(7, 300))
@settings(max_examples=12, deadline=None)
def test_bridges_do_not_depend_on_batches_or_merges(firings: int, seed: int, size: int) -> None:
    planted = planted_codes(300, 5, seed=seed)
    decoder = torch.randn(15, 6, generator=torch.Generator().manual_seed(seed))
    whole, merged = BridgeMetric(firings), BridgeMetric(firings)
    whole.update(batches_of(planted, 300)[0])
    parts = batches_of(planted, size)
    np.random.default_rng(seed).shuffle(parts)  # type: ignore[arg-type]
    for batch in parts:
        one, restored = BridgeMetric(firings), BridgeMetric(firings)
        one.update(batch)
        restored.load_state(one.state())
        merged.merge(restored)
    expected, found = whole.findings(decoder), merged.findings(decoder)
    assert found.figures == expected.figures
    assert found.columns["bridge_partner"].tolist() == expected.columns["bridge_partner"].tolist()
    np.testing.assert_allclose(found.columns["bridge"], expected.columns["bridge"], rtol=1e-12, atol=1e-12)


def test_what_the_bridge_holds_stays_within_its_budget() -> None:
    metric = BridgeMetric(500)
    sizes = []
    for seed in range(6):
        for batch in batches_of(planted_codes(600, 8, seed=seed), 100):
            metric.update(batch)
        sizes.append(sum(t.numel() * t.element_size() for t in metric.state().values()))
    assert max(sizes[2:]) < 1.1 * min(sizes[2:])


def test_the_gap_of_one_cloud_and_of_two() -> None:
    g = torch.Generator().manual_seed(0)
    base = torch.randn(400, 8, generator=g)
    none = modality_gap(base[:200], base[200:])
    far = modality_gap(base[:200] + 5, base[200:] - 5)
    assert none["centroid"] < 0.2
    assert none["separable"] < 0.65
    assert far["centroid"] > 1.5
    assert far["separable"] == pytest.approx(1.0)
    assert far["energy"] > 50 * none["energy"]
    same = modality_gap(base, base)
    assert same == {"centroid": 0.0, "separable": 0.5, "energy": 0.0}
    x = torch.nn.functional.normalize(base[:200].double(), dim=1)
    y = torch.nn.functional.normalize(base[200:].double(), dim=1)
    slow = 2 * np.mean([float((a - b).norm()) for a in x for b in y])
    slow -= np.mean([float((a - b).norm()) for a in x for b in x]) + np.mean(
        [float((a - b).norm()) for a in y for b in y]
    )
    assert none["energy"] == pytest.approx(slow, abs=1e-6)


def test_taking_out_the_latents_that_make_the_gap_closes_it() -> None:
    g = torch.Generator().manual_seed(1)
    shared = torch.randn(300, 6, generator=g).double()
    decoder = torch.eye(6).double()
    image_codes, text_codes = torch.zeros(300, 6).double(), torch.zeros(300, 6).double()
    image_codes[:, 4], text_codes[:, 5] = 6, 6
    removed = np.array([False] * 4 + [True] * 2)
    image, text = shared + image_codes @ decoder, shared.roll(1, 0) + text_codes @ decoder
    closed = modality_gap(
        without_latents(image, image_codes, decoder, removed), without_latents(text, text_codes, decoder, removed)
    )
    assert modality_gap(image, text)["centroid"] > 1
    assert closed["centroid"] < 1e-12


def test_gap_refusals() -> None:
    with pytest.raises(InputError, match=r"of equal width, but found shapes \(2, 3\) and \(2, 4\)"):
        modality_gap(torch.zeros(2, 3), torch.zeros(2, 4))


def test_ablating_what_matches_hurts_and_ablating_nothing_does_not() -> None:
    g = torch.Generator().manual_seed(2)
    direction = torch.zeros(8).double()
    direction[0] = 1
    sign = torch.where(torch.rand(64, generator=g) < 0.5, 2.0, 0.0).double()
    noise = 0.5 * torch.randn(64, 8, generator=g).double()
    image, text = noise + sign[:, None] * direction, noise.roll(0, 0) + sign[:, None] * direction
    effect = causal_effect(image, text, sign, sign, direction, scale=10.0)
    assert effect.image < -0.3
    assert effect.text < -0.3
    assert effect.image < effect.random["image"][0] - effect.random["image"][1]
    silent = causal_effect(image, text, torch.zeros(64), torch.zeros(64), direction, scale=10.0)
    assert (silent.image, silent.text, silent.both) == (0.0, 0.0, 0.0)
    one_sided = causal_effect(image, text, sign, torch.zeros(64), direction, scale=10.0)
    assert one_sided.text == 0.0
    assert one_sided.image == one_sided.both == effect.image


def test_causal_effect_needs_something_to_confuse() -> None:
    with pytest.raises(InputError, match="at least two pairs"):
        causal_effect(torch.ones(1, 2), torch.ones(1, 2), torch.ones(1), torch.ones(1), torch.ones(2), scale=1.0)


def test_random_directions_are_as_long_as_the_decoder_row() -> None:
    g = torch.Generator().manual_seed(3)
    image, text = torch.randn(2, 40, 8, generator=g, dtype=torch.float64)
    code, direction = torch.rand(40, generator=g, dtype=torch.float64), 3.0 * torch.eye(8, dtype=torch.float64)[0]
    found = causal_effect(image, text, code, code, direction, scale=5.0, n_random=4, seed=9)
    drawn = torch.randn(4, 8, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    unit = torch.nn.functional.normalize
    slow = []
    for along in drawn:
        moved = image - code[:, None] * 3.0 * along / along.norm()
        before, after = (
            pair_log_probability(unit(x, dim=1), unit(text, dim=1), 5.0, torch.zeros(40, 40, dtype=torch.bool))
            for x in (image, moved)
        )
        slow.append(after - before)
    assert found.random["image"] == pytest.approx((np.mean(slow), np.std(slow)), abs=1e-12)


def test_what_waits_stays_within_a_quarter_of_the_budget() -> None:
    kept, some = PairsDraw(firings=1000), planted_codes(600, 4)
    for batch in batches_of(some, 10):
        kept.update(batch.codes)
        assert kept._n_buffered <= 1000 // 4


@pytest.mark.parametrize("budget", [11, 12])
def test_a_pair_that_just_fills_the_budget_is_in_the_draw(budget: int) -> None:
    planted = planted_codes(40, 4)
    rows = slow_draw(planted, budget)
    exactly = sum(int((planted.image[r] != 0).sum() + (planted.text[r] != 0).sum()) for r in rows)
    for firings, pairs in ((exactly, len(rows)), (exactly - 1, len(slow_draw(planted, exactly - 1)))):
        kept = draw.PairsDraw(firings)
        for batch in batches_of(planted, 7):
            kept.update(batch.codes)
        assert kept.n_pairs == pairs
    assert len(slow_draw(planted, exactly - 1)) < len(rows)


@pytest.mark.parametrize("first", [True, False])
def test_merged_draws_keep_no_pair_beyond_the_smallest_one_left_out(first: bool) -> None:
    """Of pairs in the order of the draw with 4, 4, 4 and 1 firings, a budget of 9 holds two; the last would fit."""
    names = np.array([f"p{n}" for n in range(40)])
    order = names[np.argsort(hashed(pair_keys(names.tolist()), 83))]
    full, one = torch.ones(3, 4), torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    draws = [PairsDraw(firings=9) for _ in range(3)]
    parts = [(order[:3], full), (order[3:4], one)]
    for held, some in zip(draws, (parts[:1], parts[1:], parts), strict=True):
        for ids, dense in some:
            silent = SparseCodes.from_dense(torch.zeros_like(dense))
            held.update(PairedCodes(tuple(ids.tolist()), SparseCodes.from_dense(dense), silent))
    left, right, whole = draws
    assert (left.n_pairs, right.n_pairs) == (2, 1)
    merged, other = (left, right) if first else (right, left)
    merged.merge(other)
    assert merged.n_pairs == whole.n_pairs == 2
    assert merged._limit == whole._limit
