"""MS against its O(M^2) definition, its laws, and the streamed form."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cliplens.errors import InputError
from cliplens.records import Batch, PairedActs
from cliplens.tally import tally
from cliplens_plugins.monosemanticity import MonosemanticityMetric, ms
from support.planted import batch_of


def slow_ms(activations: np.ndarray, embeddings: np.ndarray) -> np.ndarray:
    """The definition, pair by pair."""
    e = embeddings.astype(np.float64) / np.linalg.norm(embeddings.astype(np.float64), axis=1, keepdims=True)
    out = []
    for column in activations.T.astype(np.float64):
        if (column > column.min()).sum() < 2:
            out.append(np.nan)
            continue
        a = (column - column.min()) / (column.max() - column.min())
        pairs = list(itertools.combinations(range(len(a)), 2))
        out.append(sum(a[i] * a[j] * (e[i] @ e[j]) for i, j in pairs) / sum(a[i] * a[j] for i, j in pairs))
    return np.array(out)


def some(seed: int, n: int = 40, k: int = 8, d: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Latents: dense signed, dense positive, sparse ..., one firing once, one dead, one constant."""
    g = np.random.default_rng(seed)
    acts = g.gamma(1.0, size=(n, k)) * (g.random((n, k)) < 0.3)
    acts[:, 0] = g.normal(size=n)
    acts[:, 1] = 1 + g.random(n)
    acts[:, 5] = 0
    acts[3, 5] = 1
    acts[:, 6] = 0
    acts[:, 7] = 0.3
    return acts, g.normal(size=(n, d)) * g.gamma(2.0, size=(n, 1))


def streamed(acts: np.ndarray, embeddings: np.ndarray, cuts: list[int]) -> MonosemanticityMetric:
    metric = MonosemanticityMetric()
    for a, b in itertools.pairwise([0, *cuts, len(acts)]):
        metric.update(_batch(acts[a:b], embeddings[a:b], a))
    return metric


def _batch(acts: np.ndarray, embeddings: np.ndarray, start: int) -> Batch:
    ids = tuple(f"{start + i}" for i in range(len(acts)))
    judged = {"judge": PairedActs(ids, torch.tensor(embeddings), None)}
    return batch_of(ids, torch.tensor(acts), None, judged=judged)


def test_agrees_with_the_definition() -> None:
    acts, embeddings = some(0)
    np.testing.assert_allclose(ms(acts, embeddings), slow_ms(acts, embeddings), rtol=0, atol=1e-12)


def test_the_streamed_form_agrees_with_the_definition() -> None:
    acts, embeddings = some(1)
    found = streamed(acts, embeddings, [7, 20]).findings(None).columns["ms_image"]
    np.testing.assert_allclose(found, slow_ms(acts, embeddings), rtol=0, atol=1e-10)


def test_many_latents_are_scored_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    acts, embeddings = some(1)
    whole = streamed(acts, embeddings, [7]).findings(None).columns["ms_image"]
    monkeypatch.setattr("cliplens_plugins.monosemanticity.one_pass._ROWS", 3)
    np.testing.assert_array_equal(streamed(acts, embeddings, [7]).findings(None).columns["ms_image"], whole)


def test_nan_unless_two_samples_exceed_the_minimum() -> None:
    acts, embeddings = some(2)
    expected = [False] * 5 + [True] * 3
    assert np.isnan(ms(acts, embeddings)).tolist() == expected
    assert np.isnan(streamed(acts, embeddings, [11]).findings(None).columns["ms_image"]).tolist() == expected


def test_alike_samples_score_one_and_opposite_ones_minus_one() -> None:
    embeddings = np.array([[1.0, 0], [2, 0], [0, 1], [-3, 0]])
    acts = np.array([[1.0, 1.0, 1.0], [0.5, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    np.testing.assert_allclose(ms(acts, embeddings), [1.0, 0.0, -1.0], atol=1e-15)


@given(seed=st.integers(0, 10_000), scale=st.floats(1e-3, 1e3), shift=st.floats(-10, 10))
@settings(max_examples=20, deadline=None)
def test_scale_and_shift_of_activations_do_not_matter(seed: int, scale: float, shift: float) -> None:
    acts, embeddings = some(seed)
    acts = acts[:, :5]
    np.testing.assert_allclose(ms(acts * scale + shift, embeddings * 3), ms(acts, embeddings), atol=1e-9)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_range(seed: int) -> None:
    scores = ms(*some(seed))
    assert (np.abs(scores[~np.isnan(scores)]) <= 1 + 1e-12).all()


@given(seed=st.integers(0, 10_000), cuts=st.lists(st.integers(1, 39), unique=True, max_size=4))
@settings(max_examples=20, deadline=None)
def test_cuts_and_merges_do_not_matter(seed: int, cuts: list[int]) -> None:
    acts, embeddings = some(seed)
    whole = streamed(acts, embeddings, [])
    parts = [_batch(acts[a:b], embeddings[a:b], a) for a, b in itertools.pairwise([0, *sorted(cuts), 40])]
    merged = MonosemanticityMetric()
    for part in reversed(parts):
        one, restored = MonosemanticityMetric(), MonosemanticityMetric()
        one.update(part)
        restored.load_state(one.state())
        merged.merge(restored)
    expected = whole.findings(None).columns["ms_image"]
    np.testing.assert_allclose(merged.findings(None).columns["ms_image"], expected, rtol=1e-12, atol=1e-12)


def test_the_same_kind_comes_back() -> None:
    acts, embeddings = some(3)
    as_torch = ms(torch.tensor(acts), torch.tensor(embeddings))
    assert isinstance(as_torch, Tensor)
    assert as_torch.dtype == torch.float64
    np.testing.assert_array_equal(as_torch.numpy(), ms(acts, embeddings))


def test_half_precision_embeddings_are_normalised_in_double() -> None:
    acts, embeddings = some(4)
    low = embeddings.astype(np.float16)
    np.testing.assert_allclose(ms(acts, low), slow_ms(acts, low), atol=1e-12)


def test_each_judge_has_its_columns_and_the_first_the_plain_ones() -> None:
    acts, embeddings = some(5)
    ids = tuple(str(i) for i in range(40))
    judged = {
        "a": PairedActs(ids, torch.tensor(embeddings), torch.tensor(embeddings)),
        "b": PairedActs(ids, torch.tensor(embeddings[:, :2]), None),
    }
    batch = batch_of(ids, torch.tensor(acts), torch.tensor(acts), judged=judged)
    table = tally([batch], [MonosemanticityMetric()], decoder=None).table
    assert {"ms_image", "ms_text", "ms_image_b"} < set(table)
    np.testing.assert_allclose(table["ms_image_b"], ms(acts, embeddings[:, :2]), atol=1e-10)


def test_the_figure_of_a_run_is_the_median_of_the_defined_scores() -> None:
    acts, embeddings = some(6)
    found = streamed(acts, embeddings, [9]).findings(None)
    (row,) = found.tables["Monosemanticity (MS)"]
    defined = np.sort(slow_ms(acts, embeddings)[:5])
    assert (row["median"], row["latents"]) == (pytest.approx(defined[2], abs=1e-9), 5)
    assert found.figures["ms"] == {"ms_image_judge": row["median"]}
    nothing = streamed(np.zeros((4, 2)), np.ones((4, 3)), []).findings(None).tables["Monosemanticity (MS)"][0]
    assert np.isnan(nothing["median"])
    assert nothing["latents"] == 0


def test_refusals() -> None:
    with pytest.raises(InputError, match="4 and 3 rows"):
        ms(np.zeros((4, 2)), np.ones((3, 2)))
    with pytest.raises(InputError, match="found zeros in row 1"):
        ms(np.zeros((2, 2)), np.array([[1.0, 0], [0, 0]]))
