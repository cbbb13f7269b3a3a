"""MDS against slow obvious versions, its laws, and planted codes."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cliplens.errors import InputError, NonFiniteError, UnknownNameError
from cliplens_plugins.modality import VARIANTS, classify, classify_fixed, cofiring, mds
from cliplens_plugins.modality.sums import EPS
from support.planted import planted_codes

SCALE_FREE = ["pairs", "half", "ratio_of_means", "energy", "firing"]


def slow_mds(image: np.ndarray, text: np.ndarray, variant: str) -> np.ndarray:
    """Word for word, pair by pair."""
    out = []
    for k in range(image.shape[1]):
        i, t = [float(v) for v in image[:, k]], [float(v) for v in text[:, k]]
        firing = [(abs(a), abs(b)) for a, b in zip(i, t, strict=True) if abs(a) + abs(b) > 0]
        if not firing:
            out.append(np.nan)
        elif variant == "pairs":
            out.append(np.mean([a / (a + b) for a, b in firing]))
        elif variant == "half":
            out.append(np.mean([abs(a) / (abs(a) + abs(b)) if a or b else 0.5 for a, b in zip(i, t, strict=True)]))
        elif variant == "eps":
            out.append(np.mean([abs(a) / (abs(a) + abs(b) + EPS) for a, b in zip(i, t, strict=True)]))
        elif variant == "ratio_of_means":
            out.append(sum(map(abs, i)) / (sum(map(abs, i)) + sum(map(abs, t))))
        elif variant == "energy":
            out.append(sum(a * a for a in i) / (sum(a * a for a in i) + sum(b * b for b in t)))
        else:
            n_i, n_t = sum(a > 0 for a in i), sum(b > 0 for b in t)
            out.append(n_i / (n_i + n_t) if n_i + n_t else np.nan)
    return np.array(out)


def random_codes(seed: int, *, signed: bool = False, n: int = 60, k: int = 9) -> tuple[np.ndarray, np.ndarray]:
    g = np.random.default_rng(seed)
    codes = [g.gamma(1.0, size=(n, k)) * (g.random((n, k)) < 0.2) for _ in range(2)]
    codes = [c * g.choice([-1, 1], c.shape) if signed else c for c in codes]
    for c in codes:
        c[:, 0] = 0
    codes[0][:, 1] = 0
    return codes[0], codes[1]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("signed", [False, True])
def test_agrees_with_the_slow_version(variant: str, signed: bool) -> None:
    image, text = random_codes(1, signed=signed)
    np.testing.assert_allclose(mds(image, text, variant=variant), slow_mds(image, text, variant), rtol=0, atol=1e-12)


@pytest.mark.parametrize("variant", VARIANTS)
@given(seed=st.integers(0, 10_000), signed=st.booleans())
@settings(max_examples=15, deadline=None)
def test_stays_in_range_and_is_nan_only_where_silent(variant: str, seed: int, signed: bool) -> None:
    image, text = random_codes(seed, signed=signed)
    scores = mds(image, text, variant=variant)
    silent = ~((image > 0) | (text > 0)).any(0) if variant == "firing" else ~((image != 0) | (text != 0)).any(0)
    assert (np.isnan(scores) == silent).all()
    assert ((scores[~silent] >= 0) & (scores[~silent] <= 1)).all()


@pytest.mark.parametrize("variant", SCALE_FREE)
@given(seed=st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_swapping_the_modalities_mirrors_the_score(variant: str, seed: int) -> None:
    image, text = random_codes(seed)
    np.testing.assert_allclose(mds(text, image, variant=variant), 1 - mds(image, text, variant=variant), atol=1e-14)


@pytest.mark.parametrize("variant", SCALE_FREE)
@given(seed=st.integers(0, 10_000), scale=st.floats(1e-6, 1e6))
@settings(max_examples=15, deadline=None)
def test_the_scale_of_a_latent_does_not_matter(variant: str, seed: int, scale: float) -> None:
    image, text = random_codes(seed)
    np.testing.assert_allclose(
        mds(image * scale, text * scale, variant=variant), mds(image, text, variant=variant), atol=1e-12
    )


@given(seed=st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_the_order_of_pairs_does_not_matter(seed: int) -> None:
    image, text = random_codes(seed)
    order = np.random.default_rng(seed).permutation(len(image))
    np.testing.assert_allclose(mds(image[order], text[order]), mds(image, text), atol=1e-13)


def test_silent_pairs_change_nothing_by_default() -> None:
    image, text = random_codes(2)
    silent = np.zeros((500, image.shape[1]))
    np.testing.assert_allclose(mds(np.vstack([image, silent]), np.vstack([text, silent])), mds(image, text), atol=1e-15)


def test_pure_latents_score_exactly_nought_and_one() -> None:
    image = np.array([[0.1, 0.0], [0.3, 0.0], [0.7, 0.0]])
    assert mds(image, image[:, ::-1].copy()).tolist() == [1.0, 0.0]


def test_known_ratios() -> None:
    image, text = torch.tensor([[3.0], [0.0], [1.0]]), torch.tensor([[1.0], [0.0], [1.0]])
    assert float(mds(image, text)) == pytest.approx((0.75 + 0.5) / 2)
    assert float(mds(image, text, variant="half")) == pytest.approx((0.75 + 0.5 + 0.5) / 3)
    assert float(mds(image, text, variant="ratio_of_means")) == pytest.approx(4 / 6)
    assert float(mds(image, text, variant="energy")) == pytest.approx(10 / 12)
    assert float(mds(image, text, variant="firing")) == pytest.approx(0.5)
    assert float(mds(image, text, variant="eps")) == pytest.approx((0.75 + 0.5) / 3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_the_same_kind_comes_back_in_float64(dtype: torch.dtype) -> None:
    image, text = (torch.tensor(c).to(dtype) for c in random_codes(3))
    scores = mds(image, text)
    assert isinstance(scores, Tensor)
    assert scores.dtype == torch.float64
    assert isinstance(mds(image.numpy(), text.numpy()), np.ndarray)
    np.testing.assert_array_equal(scores.numpy(), mds(image.numpy(), text.numpy()))


def test_large_half_precision_codes_do_not_overflow() -> None:
    codes = torch.full((4, 1), 60000.0, dtype=torch.float16)
    assert float(mds(codes, codes, variant="energy")) == 0.5


def test_no_pairs_or_no_latents() -> None:
    assert np.isnan(mds(np.zeros((0, 3)), np.zeros((0, 3)))).all()
    assert mds(np.zeros((5, 0)), np.zeros((5, 0))).shape == (0,)


def test_planted_classes_come_back_by_default_and_not_with_epsilon() -> None:
    planted = planted_codes(dead=3)
    right = {
        v: (classify_fixed(mds(planted.image, planted.text, variant=v)) == planted.classes).mean() for v in VARIANTS
    }
    assert right["pairs"] == 1.0
    assert right["eps"] < 0.5
    assert right["half"] < 0.5
    assert "TextD" not in classify(mds(planted.image, planted.text, variant="eps")).tolist() or right["eps"] < 0.5


def test_co_firing_separates_shared_latents_and_keeps_its_range() -> None:
    planted = planted_codes()
    phi = cofiring(planted.image, planted.text)
    shared = torch.tensor(planted.classes == "CrossD")
    assert phi[shared].min() > phi[~shared].max()
    slow = [np.corrcoef(planted.image[:, k] > 0, planted.text[:, k] > 0)[0, 1] for k in range(5)]
    np.testing.assert_allclose(phi[:5].numpy(), slow, atol=1e-12)
    assert cofiring(np.array([[1.0], [2.0]]), np.array([[0.0], [0.0]])).tolist() == [0.0]
    assert np.isnan(cofiring(np.zeros((2, 1)), np.zeros((2, 1)))).all()


def test_shapes_that_differ_are_refused_with_words() -> None:
    with pytest.raises(InputError) as error:
        mds(np.zeros((3, 2)), np.zeros((3, 4)))
    assert str(error.value) == (
        "Expected image and text codes of equal shape, but found shapes (3, 2) and (3, 4). "
        "Fix: encode image i and caption i of every pair with one dictionary."
    )


def test_an_unknown_variant_lists_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="'pairs'"):
        mds(np.zeros((3, 2)), np.zeros((3, 2)), variant="pair")


def test_nan_is_refused() -> None:
    with pytest.raises(NonFiniteError, match="Expected finite numbers as text codes"):
        mds(np.zeros((1, 1)), np.array([[np.nan]]))
