"""Intervals that cover, a null that holds, and a tail that never promises too much."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from cliplens.keys import hashed, hashed_uniform, pair_keys
from cliplens.records import PairedCodes, SparseCodes
from cliplens.statistics import benjamini_hochberg, percentile_interval, poisson_weights
from cliplens.tally import Sums, tally
from cliplens_plugins.modality import ModalityMetric
from cliplens_plugins.modality.bootstrap import add_replicates, replicates
from cliplens_plugins.modality.interval import interval, ratio_interval
from cliplens_plugins.modality.null import swap_p
from cliplens_plugins.modality.sums import add_pairs
from support.planted import batch_of, batches_of, planted_codes


def ids_of(trial: int, n: int) -> tuple[str, ...]:
    return tuple(f"{trial}-{i}" for i in range(n))


# --- bootstrap


def test_weights_are_poisson_and_belong_to_the_pair() -> None:
    keys = pair_keys(ids_of(0, 4000))
    weights = poisson_weights(keys, 50)
    counts = np.bincount(weights.astype(int).ravel(), minlength=5)[:5] / weights.size
    np.testing.assert_allclose(counts, np.exp(-1) / np.array([1, 1, 2, 6, 24]), atol=0.005)
    assert abs(np.corrcoef(weights.T) - np.eye(50)).max() < 0.1
    np.testing.assert_array_equal(poisson_weights(keys[::-1].copy(), 50), weights[::-1])
    np.testing.assert_array_equal(poisson_weights(keys, 10), weights[:, :10])


def test_replicates_equal_the_slow_ones() -> None:
    planted = planted_codes(300, 5)
    sums = Sums()
    for batch in batches_of(planted, 64):
        add_replicates(sums, batch.codes, 20)
    weights = poisson_weights(pair_keys(planted.ids), 20)
    image, text = planted.image.numpy(), planted.text.numpy()
    for k in range(15):
        fires = image[:, k] + text[:, k] > 0
        ratio = image[fires, k] / (image[fires, k] + text[fires, k])
        with np.errstate(invalid="ignore"):
            slow = (weights[fires] * ratio[:, None]).sum(0) / weights[fires].sum(0)
        np.testing.assert_allclose(replicates(sums)[k].numpy(), slow, atol=1e-12)


def _covered(true: np.ndarray, n: int, trials: int, seed: int) -> float:
    """Share of intervals that hold the true score, over latents whose ratios are drawn about it."""
    g = np.random.default_rng(seed)
    hits = []
    for trial in range(trials):
        pure = g.random((n, len(true))) < 0.5
        ratio = np.where(pure, g.random((n, len(true))) < true, g.beta(8 * true, 8 * (1 - true), (n, len(true))))
        size = g.gamma(2, size=ratio.shape)
        sides = (SparseCodes.from_dense(torch.tensor(s)) for s in (ratio * size, (1 - ratio) * size))
        codes = PairedCodes(ids_of(seed * 1000 + trial, n), *sides)
        sums, drawn = Sums(), Sums()
        add_pairs(sums, codes)
        add_replicates(drawn, codes, 200)
        bounds = interval(sums, drawn)
        assert n >= 200 or bounds.wilson.all()
        hits.append((bounds.low <= true) & (true <= bounds.high))
    return float(np.mean(hits))


def test_coverage_with_many_firings() -> None:
    true = np.tile([0.05, 0.2, 0.5, 0.8, 0.95], 30)
    assert 0.93 <= _covered(true, 250, trials=8, seed=1) <= 0.97


def test_replicates_are_sorted_a_few_latents_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    g = np.random.default_rng(0)
    sides = (SparseCodes.from_dense(torch.tensor(g.gamma(2, size=(250, 7)))) for _ in range(2))
    sums, drawn, codes = Sums(), Sums(), PairedCodes(ids_of(0, 250), *sides)
    add_pairs(sums, codes)
    add_replicates(drawn, codes, 200)
    whole, asked = interval(sums, drawn), []
    assert not whole.wilson.any()

    def watched(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        asked.append(len(values))
        return percentile_interval(values)

    monkeypatch.setattr("cliplens_plugins.modality.interval._LATENTS", 3)
    monkeypatch.setattr("cliplens_plugins.modality.interval.percentile_interval", watched)
    parts = interval(sums, drawn)
    np.testing.assert_array_equal([parts.low, parts.high], [whole.low, whole.high])
    assert asked == [3, 3, 1]


@pytest.mark.parametrize("n", [10, 50])
def test_coverage_with_few_firings_is_at_least_near_nominal(n: int) -> None:
    true = np.tile([0.03, 0.2, 0.5, 0.97], 50)
    assert _covered(true, n, trials=4, seed=2) >= 0.93


@given(n=st.integers(1, 300), ones=st.integers(0, 300))
@settings(max_examples=40, deadline=None)
def test_wilson_is_the_textbook_interval_where_ratios_are_nought_or_one(n: int, ones: int) -> None:
    from scipy.stats import binomtest

    ones = min(ones, n)
    d1 = torch.tensor([ones - n / 2], dtype=torch.float64)
    low, high = ratio_interval(torch.tensor([n], dtype=torch.float64), d1, torch.tensor([n / 4], dtype=torch.float64))
    expected = binomtest(ones, n).proportion_ci(method="wilson")
    assert float(low) == pytest.approx(expected.low, abs=1e-9)
    assert float(high) == pytest.approx(expected.high, abs=1e-9)


def test_few_or_one_sided_firings_are_flagged() -> None:
    n = 400
    image, text = torch.zeros(n, 3).double(), torch.zeros(n, 3).double()
    image[:, 0], text[::2, 0] = 1, 1
    image[:, 1], text[0, 1] = 1, 1
    image[:50, 2], text[:25, 2] = 1, 1
    table = tally([batch_of(ids_of(0, n), image, text)], [ModalityMetric()], decoder=None).table
    assert table["mds_interval"].tolist() == ["percentile", "wilson", "wilson"]
    assert table["mds_pairs"].tolist() == [400, 400, 50]
    assert (table["mds_low"] <= table["mds"]).all()
    assert (table["mds"] <= table["mds_high"]).all()


# --- the null


def _exact_p(d: np.ndarray) -> float:
    """Share of all sign choices whose sum is as large as the one seen."""
    sums = [abs(float(np.dot(signs, d))) for signs in itertools.product((-1, 1), repeat=len(d))]
    return float(np.mean(np.array(sums) >= abs(d.sum()) - 1e-12))


@given(st.lists(st.floats(-0.5, 0.5), min_size=1, max_size=9))
@settings(max_examples=60, deadline=None)
def test_p_is_never_below_the_exact_permutation_p(ratios: list[float]) -> None:
    d = np.round(np.array(ratios), 6)
    p = float(swap_p(torch.tensor([d.sum()]), torch.tensor([(d * d).sum()]))[0])
    assert 0 <= p <= 1
    assert p >= _exact_p(d) - 1e-9


def test_two_equal_pairs_have_p_one_half_exactly() -> None:
    assert swap_p(torch.tensor([1.0]).double(), torch.tensor([0.5]).double())[0] == pytest.approx(0.5, abs=1e-12)


def test_p_is_within_four_of_the_drawn_permutations_tail() -> None:
    g = np.random.default_rng(0)
    d = g.beta(2, 2, 300) - 0.5
    seen = np.sort(np.abs(d))[::-1].sum() * 0.12
    signs = np.where(
        hashed_uniform(pair_keys(ids_of(0, 300))[:, None] ^ hashed(np.arange(20000, dtype=np.uint64), 1), 1) < 0.5,
        -1,
        1,
    )
    drawn = float((np.abs(d @ signs) >= seen).mean())
    bound = float(swap_p(torch.tensor([seen]), torch.tensor([(d * d).sum()]))[0])
    assert drawn <= bound <= 4 * drawn


def test_far_tails_are_far_below_what_permutations_could_give() -> None:
    assert swap_p(torch.tensor([500.0]).double(), torch.tensor([250.0]).double())[0] < 1e-100


def test_benjamini_hochberg_by_hand() -> None:
    p = np.array([0.01, 0.04, 0.03, np.nan, 0.005])
    np.testing.assert_allclose(benjamini_hochberg(p), [0.02, 0.04, 0.04, np.nan, 0.02])


def test_false_discoveries_under_the_null_at_4096_latents() -> None:
    """Images and captions exchangeable, heavy-tailed firing: at most 5 % of the repeats (2 of 40) may find anything."""
    g = np.random.default_rng(5)
    repeats, found = 40, 0
    for _ in range(repeats):
        n = np.minimum(2 + g.pareto(0.8, 4096) * 5, 1000).astype(int)
        latent = np.repeat(np.arange(4096), n)
        d = g.choice([0.5, -0.5], len(latent)) * np.where(g.random(len(latent)) < 0.5, 1, g.random(len(latent)))
        d1, d2 = (torch.tensor(np.bincount(latent, w, minlength=4096)) for w in (d, d * d))
        found += int((benjamini_hochberg(swap_p(d1, d2)) <= 0.05).any())
    assert found <= 2


def test_false_discoveries_among_true_ones_stay_below_nominal_and_power_is_high() -> None:
    g = np.random.default_rng(6)
    true = np.arange(4096) < 1000
    rates = []
    for _ in range(10):
        n = g.integers(20, 200, 4096)
        latent = np.repeat(np.arange(4096), n)
        d = np.where(g.random(len(latent)) < np.where(true, 0.9, 0.5)[latent], 0.5, -0.5)
        d1, d2 = (torch.tensor(np.bincount(latent, w, minlength=4096)) for w in (d, d * d))
        significant = benjamini_hochberg(swap_p(d1, d2)) <= 0.05
        rates.append((significant & ~true).sum() / max(1, significant.sum()))
        assert (significant & true).sum() > 950
    assert np.mean(rates) <= 0.05


def test_significant_classes_need_the_whole_interval_beyond_the_cut() -> None:
    planted = planted_codes(dead=2)
    table = tally(batches_of(planted), [ModalityMetric()], decoder=None).table
    sure = table["modality_significant"]
    for name, cut in (("ImgD", table["mds_low"] > 0.8), ("TextD", table["mds_high"] < 0.2)):
        assert ((sure == name) == (cut & (table["mds_q"] <= 0.05))).all()
        assert (planted.classes[sure == name] == name).all()
        assert (sure == name).sum() >= 20
    assert sure[-2:].tolist() == ["dead", "dead"]
    assert np.isnan(table["mds_q"][-2:]).all()


def test_replicates_do_not_depend_on_batches_or_merges() -> None:
    planted = planted_codes(400, 6)
    whole, merged = ModalityMetric(), ModalityMetric()
    whole.update(batch_of(planted.ids, planted.image, planted.text))
    for batch in reversed(batches_of(planted, 33)):
        one = ModalityMetric()
        one.update(batch)
        merged.merge(one)
    expected, found = whole.findings(None).columns, merged.findings(None).columns
    for column in ("mds_low", "mds_high", "mds_q"):
        np.testing.assert_allclose(found[column], expected[column], rtol=1e-12, atol=1e-12)


def test_p_is_the_bound_by_its_formula_and_never_above_hoeffdings() -> None:
    t = np.linspace(0.0, 6.0, 241)
    bound = 2 * norm.sf(t) / (4 * norm.sf(np.sqrt(2)))
    found = swap_p(torch.as_tensor(3 * t), torch.full_like(torch.as_tensor(t), 9.0))
    np.testing.assert_allclose(found, np.minimum(bound, 1), rtol=1e-12)
    assert (found <= np.minimum(2 * np.exp(-(t**2) / 2), 1)).all()
