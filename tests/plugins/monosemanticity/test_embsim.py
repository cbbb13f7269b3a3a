"""EmbSim, WinRate and MMS against slow obvious versions; streamed and whole agree."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cliplens.contracts import Metric
from cliplens.keys import hashed, pair_keys
from cliplens.records import Batch, PairedActs, PairedCodes, SparseCodes
from cliplens.tally import TopSamples, tally
from cliplens_plugins.monosemanticity import EmbSimMetric, MonosemanticityMetric, embsim, mms, winrate
from cliplens_plugins.monosemanticity.baseline import SEEDS, drawn
from cliplens_plugins.monosemanticity.sketch import Pool, TopEmbeddings, drawn_latents, most_of
from cliplens_plugins.monosemanticity.winrate import winrate_score
from support.planted import batch_of

N, K, D = 240, 6, 7
IDS = tuple(f"p{i}" for i in range(N))


def data(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes of latents that fire along a direction each, one rarely, one never; embeddings of both."""
    g = np.random.default_rng(seed)
    e, f = (g.normal(size=(N, D)) for _ in range(2))
    f += 0.7 * e
    e, f = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (e, f))
    acts = np.maximum(e @ g.normal(size=(D, K)) - 0.3, 0)
    acts[30:, K - 2] = 0
    acts[:, K - 1] = 0
    return acts, e, f


def slow(acts: np.ndarray, e: np.ndarray, m: int, what: str) -> np.ndarray:
    out = []
    draws = drawn(len(e), m, acts.shape[1])
    for k in range(acts.shape[1]):
        if (acts[:, k] > 0).sum() < m:
            out.append(np.nan)
            continue
        plus = e[np.argsort(-acts[:, k], kind="stable")[:m]]
        total = 0.0
        for seed in range(SEEDS):
            minus = e[draws[k, seed]]
            for i, j in itertools.permutations(range(m), 2):
                s, r = float(plus[i] @ plus[j]), float(minus[i] @ minus[j])
                total += {"embsim": s - r, "plain": s, "winrate": float(s > r)}[what]
        out.append(total / SEEDS / (m * (m - 1)))
    return np.array(out)


def test_agree_with_the_slow_versions() -> None:
    acts, e, _ = data()
    np.testing.assert_allclose(embsim(acts, e, 8), slow(acts, e, 8, "embsim"), atol=1e-12)
    np.testing.assert_allclose(embsim(acts, e, 8, plain=True), slow(acts, e, 8, "plain"), atol=1e-12)
    np.testing.assert_allclose(
        winrate(torch.tensor(acts), torch.tensor(e), 8).numpy(), slow(acts, e, 8, "winrate"), atol=1e-12
    )


def test_alike_samples_win_and_random_ones_are_at_chance() -> None:
    g = np.random.default_rng(1)
    n = 3000
    e = g.normal(size=(n, 16))
    acts = np.abs(g.normal(size=(n, 60)))
    acts[:, 0] = np.maximum(e[:, 0], 0)
    rates = winrate(acts, e)
    assert rates[0] > 0.7
    assert np.abs(rates[1:].mean() - 0.5) < 0.02
    assert embsim(acts, e)[0] > 0.1
    assert np.abs(embsim(acts, e)[1:].mean()) < 0.01


def test_nan_where_fewer_than_m_samples_fire() -> None:
    acts, e, _ = data()
    for m, expected in ((10, [False] * 5 + [True]), (31, [False] * 4 + [True] * 2)):
        assert np.isnan(embsim(acts, e, m)).tolist() == expected
        assert np.isnan(winrate(acts, e, m)).tolist() == expected


def slow_mms(a: np.ndarray, b: np.ndarray, e: np.ndarray, f: np.ndarray, own: bool) -> np.ndarray:
    out = []
    for k in range(a.shape[1]):
        pairs = [(i, j) for i in range(len(a)) for j in range(len(b)) if own or i != j]
        weight = sum(a[i, k] * b[j, k] for i, j in pairs)
        out.append(sum(a[i, k] * b[j, k] * (e[i] @ f[j]) for i, j in pairs) / weight if weight else np.nan)
    return np.array(out)


@pytest.mark.parametrize("own", [False, True])
def test_mms_agrees_with_the_slow_version(own: bool) -> None:
    acts, e, f = (x[:30] for x in data(2))
    other = np.roll(acts, 3, axis=0)
    np.testing.assert_allclose(mms(acts, other, e, f, own_pairs=own), slow_mms(acts, other, e, f, own), atol=1e-12)
    np.testing.assert_allclose(
        mms(acts * 7, other / 3, e, f, own_pairs=own), mms(acts, other, e, f, own_pairs=own), atol=1e-12
    )


def test_mms_is_nan_where_a_latent_fires_on_one_own_pair_only() -> None:
    a = np.zeros((4, 2))
    a[1] = 1 / 3
    e = np.eye(4)
    assert np.isnan(mms(a, a * 0.7, e, e)).all()
    assert mms(a, a, e, e, own_pairs=True).tolist() == pytest.approx([1, 1])


# --- streamed


def batches(size: int = 50, judge_text: bool = True) -> list[Batch]:
    acts, e, f = data(3)
    other = np.roll(acts, 1, axis=0)
    out = []
    for a in range(0, N, size):
        part = slice(a, a + size)
        text = torch.tensor(f[part]) if judge_text else None
        judged = {"judge": PairedActs(IDS[part], torch.tensor(e[part]), text)}
        out.append(batch_of(IDS[part], torch.tensor(acts[part]), torch.tensor(other[part]), judged=judged))
    return out


def by_hashed_order() -> np.ndarray:
    """The order in which the pool holds all pairs, when all of them fit into it."""
    return np.argsort(hashed(pair_keys(IDS), 20))


def test_the_streamed_scores_equal_the_functions_on_pairs_in_the_pools_order() -> None:
    acts, e, f = (x[by_hashed_order()] for x in data(3))
    other = np.roll(data(3)[0], 1, axis=0)[by_hashed_order()]
    table = tally(batches(), [EmbSimMetric((8, 20)), MonosemanticityMetric()], decoder=None).table
    draws, e32 = drawn(N, 20, K), e.astype(np.float32)
    assert draws.shape == (K, SEEDS, 20)
    np.testing.assert_allclose(table["embsim_image"], embsim(acts, e32), atol=1e-6)
    np.testing.assert_allclose(table["winrate_image"], winrate(acts, e32), atol=0.02)
    np.testing.assert_allclose(table["embsim_text"], embsim(other, f), atol=1e-6)
    np.testing.assert_allclose(table["mms"], mms(acts, other, e, f), atol=1e-10)
    assert not np.isnan(table["embsim_cross"][0])


def test_only_latents_of_the_table_are_scored_for_its_other_numbers_of_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    def scored() -> list[dict[str, np.ndarray]]:
        metric = EmbSimMetric((8, 20))
        for batch in batches():
            metric.update(batch)
        comparison = metric._comparison("judge", "image")
        assert comparison is not None
        return [comparison.scores(m) for m in (8, 20)]

    every = scored()
    monkeypatch.setattr("cliplens_plugins.monosemanticity.sketch.FULL", 2)
    some = scored()
    in_table = np.isin(np.arange(K), drawn_latents(K))
    assert in_table.sum() == 2
    for name in ("embsim", "winrate"):
        np.testing.assert_array_equal(some[0][name], np.where(in_table, every[0][name], np.nan))
        np.testing.assert_array_equal(some[1][name], every[1][name])


def test_across_modalities_by_hand() -> None:
    acts, e, f = data(3)
    other = np.roll(acts, 1, axis=0)
    order = by_hashed_order()
    i, j = (np.argsort(-x[:, 0], kind="stable")[:8] for x in (acts, other))
    counted = [(p, q) for p in range(8) for q in range(8) if p != q and i[p] != j[q]]
    total = 0.0
    for draw in drawn(N, 20, K)[0, :, :8]:
        d = order[draw]
        total += np.mean([e[i[p]] @ f[j[q]] - e[d[p]] @ f[d[q]] for p, q in counted])
    found = tally(batches(), [EmbSimMetric((8, 20))], decoder=None).tables[
        "EmbSim and WinRate by the number of top samples"
    ]
    metric = EmbSimMetric((8, 20))
    for batch in batches():
        metric.update(batch)
    comparison = metric._comparison("judge", "cross")
    assert comparison is not None
    assert comparison.scores(8)["embsim"][0] == pytest.approx(total / SEEDS, abs=1e-6)
    assert [row["m"] for row in found] == [8, 20] * 3


def test_a_judge_of_one_modality_gives_no_cross_columns() -> None:
    table = tally(batches(judge_text=False), [EmbSimMetric((20,)), MonosemanticityMetric()], decoder=None).table
    assert set(table) == {"latent", "embsim_image", "winrate_image", "ms_image"}


@pytest.mark.parametrize("kind", [EmbSimMetric, MonosemanticityMetric])
def test_parts_merge_in_any_order_and_survive_saving(kind: type[Metric]) -> None:
    whole, merged = kind(), kind()
    for batch in batches(240):
        whole.update(batch)
    for batch in reversed(batches(30)):
        one, restored = kind(), kind()
        one.update(batch)
        restored.load_state(one.state())
        merged.merge(restored)
    expected, found = whole.findings(None).columns, merged.findings(None).columns
    assert set(found) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-12, atol=1e-12)


def test_the_pool_keeps_a_draw_that_does_not_depend_on_order() -> None:
    rows = torch.arange(100.0)[:, None]
    keys = pair_keys([str(i) for i in range(100)])
    forward, backward = Pool(10), Pool(10)
    forward.update(keys, keys, rows)
    for a in range(90, -1, -10):
        backward.update(keys[a : a + 10], keys[a : a + 10], rows[a : a + 10])
    assert torch.equal(forward.rows, backward.rows)
    assert len(forward.rows) == 10
    assert sorted(forward.rows[:, 0].tolist()) != list(range(10))


@given(seed=st.integers(0, 1000), size=st.integers(7, 120))
@settings(max_examples=10, deadline=None)
def test_embsim_does_not_depend_on_batches_or_merges(seed: int, size: int) -> None:
    parts = batches(size)
    np.random.default_rng(seed).shuffle(parts)  # type: ignore[arg-type]
    whole, merged = EmbSimMetric((4, 20)), EmbSimMetric((4, 20))
    whole.update(batches(240)[0])
    for batch in parts:
        one, restored = EmbSimMetric((4, 20)), EmbSimMetric((4, 20))
        one.update(batch)
        restored.load_state(one.state())
        merged.merge(restored)
    expected, found = whole.findings(None), merged.findings(None)
    for name, values in expected.columns.items():
        np.testing.assert_allclose(found.columns[name], values, rtol=1e-12, atol=1e-12)
    assert found.tables == expected.tables


def test_what_embsim_holds_is_bounded_whatever_the_pairs() -> None:
    """20 embeddings of every latent, 50 of the drawn ones, and the pool: however many more samples come."""
    g = torch.Generator().manual_seed(0)
    d_sae, sizes = 40, []
    kept = TopEmbeddings("image", 50, 20)
    kept.samples._most_of = lambda n: most_of(n, 50, 20) - 30 * (np.arange(n) >= 10)  # as if 10 of 40 were drawn
    for number in range(60):
        ids = tuple(f"{number}-{i}" for i in range(200))
        codes = SparseCodes.from_dense(
            torch.rand(200, d_sae, generator=g) * (torch.rand(200, d_sae, generator=g) < 0.1)
        )
        kept.update(PairedCodes(ids, codes, None), torch.randn(200, 8, generator=g))
        sizes.append(len(kept.samples.ids))
    assert max(sizes) <= 10 * 50 + 30 * 20
    table = kept.samples.table()
    assert ((table >= 0).sum(1) == np.where(np.arange(d_sae) < 10, 50, 20)).all()


def test_drawn_latents_are_all_of_a_small_dictionary_and_a_fixed_draw_of_a_large_one() -> None:
    assert drawn_latents(30).tolist() == list(range(30))
    many = drawn_latents(5000)
    assert len(many) == len(set(many.tolist())) == 1024
    assert abs(many.mean() / 5000 - 0.5) < 0.05
    assert (most_of(5000, 50, 20) == 50).sum() == 1024


def test_embeddings_stay_with_their_samples() -> None:
    g = torch.Generator().manual_seed(1)
    rows = torch.randn(300, 3, generator=g)
    ids = tuple(f"{i:03d}" for i in range(300))
    acts = torch.rand(300, 6, generator=g).mul(4).round() / 4  # many ties
    seen = TopSamples("image", 7)
    for a in range(240, -1, -60):
        seen.add(ids[a : a + 60], SparseCodes.from_dense(acts[a : a + 60]), rows[a : a + 60])
    assert seen.payload is not None
    assert torch.equal(seen.payload, rows[[int(i) for i in seen.ids]])
    for k, at in enumerate(seen.table()):
        slow = sorted(range(300), key=lambda i: (-float(acts[i, k]), ids[i]))[:7]
        assert [int(seen.ids[p]) for p in at] == slow


@given(seed=st.integers(0, 1000), scale=st.floats(1e-3, 1e3), m=st.integers(2, 25))
@settings(max_examples=12, deadline=None)
def test_ranges_and_what_does_not_matter(seed: int, scale: float, m: int) -> None:
    acts, e, f = data(seed)
    rates, scores = winrate(acts, e, m), embsim(acts, e, m)
    living = ~np.isnan(rates)
    assert (np.isnan(scores) == ~living).all()
    assert ((rates[living] >= 0) & (rates[living] <= 1)).all()
    assert (np.abs(scores[living]) <= 2).all()
    np.testing.assert_allclose(embsim(acts * scale, e * 3, m), scores, atol=1e-12)
    np.testing.assert_array_equal(winrate(acts * scale, e, m), rates)
    crossed = mms(acts, acts[::-1].copy(), e, f)
    np.testing.assert_allclose(mms(acts[::-1].copy(), acts, f, e), crossed, atol=1e-12)
    assert (np.abs(crossed[~np.isnan(crossed)]) <= 1 + 1e-12).all()
    assert np.isnan(crossed[-1])


def test_ties_of_winrate_are_no_wins() -> None:
    plus, minus = np.array([[[1.0, 0.5], [0.5, 0.2]]]), np.array([[[1.0, 0.5], [0.4, 0.3]]])
    assert winrate_score(plus, minus).tolist() == [[[0.0, 0.0], [1.0, 0.0]]]
    alike = np.ones((60, 3))
    assert winrate(np.random.default_rng(0).random((60, 2)), alike, 10).tolist() == [0.0, 0.0]


def test_latents_beyond_the_draws_share_those_of_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    from cliplens_plugins.monosemanticity import baseline

    rng = np.random.default_rng(0)
    acts, judged = rng.random((40, 7)), rng.normal(size=(40, 5))
    baseline.drawn.cache_clear()
    monkeypatch.setattr(baseline, "DRAWS", 3)
    found = embsim(acts, judged, m=6)
    assert baseline.drawn(40, 6, 7).shape == (3, 5, 6)
    unit = judged / np.linalg.norm(judged, axis=1, keepdims=True)
    for latent in range(7):
        top = np.argsort(-acts[:, latent], kind="stable")[:6]
        scores = []
        for seed in range(5):
            draw = np.random.default_rng([seed, latent % 3]).choice(40, 6, replace=False)
            plus, minus = unit[top] @ unit[top].T, unit[draw] @ unit[draw].T
            scores.append((plus - minus)[~np.eye(6, dtype=bool)].mean())
        assert found[latent] == pytest.approx(np.mean(scores), abs=1e-12)
    baseline.drawn.cache_clear()
