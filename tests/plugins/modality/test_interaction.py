"""Bridges, the gap, and causal ablation."""

import numpy as np
import pytest
import torch

from cliplens.errors import InputError
from cliplens.tally import tally
from cliplens_plugins.modality import (
    BridgeMetric,
    bridge,
    causal_effect,
    classify_fixed,
    mds,
    modality_gap,
    without_latents,
)
from cliplens_plugins.modality.bridge import Products
from support.planted import batches_of, planted_codes


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


def test_products_merge_and_survive_saving() -> None:
    planted = planted_codes(300, 5)
    whole, merged = Products(), Products()
    for batch in batches_of(planted, 300):
        whole.update(batch.codes)
    for batch in reversed(batches_of(planted, 40)):
        one, restored = Products(), Products()
        one.update(batch.codes)
        restored.load_state(one.state())
        merged.merge(restored)
    assert whole.held is not None
    assert merged.held is not None
    np.testing.assert_allclose(merged.held.toarray(), whole.held.toarray(), rtol=1e-12)
    assert merged.n_pairs == 300


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
    with pytest.raises(InputError, match=r"of one width. Found \(2, 3\) and \(2, 4\)"):
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
