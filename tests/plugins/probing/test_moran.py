"""Moran's I against its definition, and streamed over images."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cliplens.records import Batch, PairedActs, PairedCodes, SparseCodes
from cliplens.tally import tally
from cliplens_plugins.probing import MoranMetric, morans_i
from cliplens_plugins.probing.moran import chance_level
from cliplens_plugins.probing.moran_metric import LEAST_IMAGES


def slow(x: np.ndarray) -> float:
    """Patch by patch."""
    height, width = x.shape
    centred = x - x.mean()
    places = [(i, j) for i in range(height) for j in range(width)]
    together = pairs = 0.0
    for a in places:
        for b in places:
            if a != b and max(abs(a[0] - b[0]), abs(a[1] - b[1])) == 1:
                together += centred[a] * centred[b]
                pairs += 1
    return height * width / pairs * together / (centred**2).sum()


@given(st.integers(1, 5), st.integers(2, 5), st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_it_is_its_definition(height: int, width: int, seed: int) -> None:
    maps = np.random.default_rng(seed).exponential(size=(3, height, width))
    np.testing.assert_allclose(morans_i(maps), [slow(m) for m in maps], atol=1e-12)


def test_known_maps() -> None:
    board = np.indices((6, 6)).sum(0) % 2
    half = np.zeros((6, 6))
    half[:, :3] = 1
    alternating, together = morans_i(np.stack([board, half]).astype(float))
    assert alternating < chance_level(36) < 0.5 < together
    assert np.isnan(morans_i(np.ones((1, 4, 4))))
    assert np.isnan(morans_i(np.ones((1, 1, 1))))
    random = np.random.default_rng(0).random((4000, 5, 5))
    assert morans_i(random).mean() == pytest.approx(chance_level(25), abs=0.005)
    np.testing.assert_allclose(morans_i(3 * random[:9] - 7), morans_i(random[:9]), atol=1e-10)


def batches(images: int, side: int, seed: int = 0) -> tuple[torch.Tensor, list[Batch]]:
    """Codes [image, patch, latent] of four latents: in the left half, anywhere, in one corner, everywhere."""
    g = np.random.default_rng(seed)
    codes = np.zeros((images, side, side, 4))
    codes[:, :, : side // 2, 0] = 1 + g.random((images, side, side // 2))
    codes[..., 1] = g.random((images, side, side)) * (g.random((images, side, side)) < 0.4)
    codes[:, 0, 0, 2] = 1
    codes[..., 3] = 1 + g.random((images, side, side))
    flat = torch.as_tensor(codes).flatten(1, 2)
    out = []
    for start in range(0, images, 7):
        part = flat[start : start + 7]
        ids = tuple(f"i{start + n}" for n in range(len(part)) for _ in range(side * side))
        paired = PairedCodes(ids, SparseCodes.from_dense(part.flatten(0, 1)), None)
        out.append(Batch(PairedActs(ids, None, None), paired, PairedActs(ids, None, None)))
    return flat, out


def test_the_mean_over_images_beside_shuffled_patches() -> None:
    flat, given_batches = batches(60, 6)
    found = tally(given_batches, [MoranMetric()], decoder=None)
    assert found.failed == ()
    expected = [np.mean([slow(image[:, k].reshape(6, 6)) for image in flat.numpy()]) for k in (0, 1)]
    np.testing.assert_allclose(found.table["moran"][:2], expected, atol=1e-12)
    assert np.isnan(found.table["moran"][2:]).all()
    assert found.table["moran_images"].tolist() == [60, 60, 0, 0]
    np.testing.assert_allclose(found.table["moran_shuffled"][:2], chance_level(36), atol=0.03)
    assert found.figures["moran"] == pytest.approx(np.mean(expected), abs=1e-12)


def test_batches_and_merges_do_not_matter() -> None:
    _, parts = batches(LEAST_IMAGES, 4)
    whole, merged = MoranMetric(), MoranMetric()
    for batch in parts:
        whole.update(batch)
    for batch in reversed(parts):
        one, restored = MoranMetric(), MoranMetric()
        one.update(batch)
        restored.load_state(one.state())
        merged.merge(restored)
    expected, found = whole.findings(None), merged.findings(None)
    for name, values in expected.columns.items():
        np.testing.assert_allclose(found.columns[name], values, atol=1e-12)


def test_captions_of_a_picture_are_no_patches_and_a_picture_counts_once() -> None:
    g = torch.Generator().manual_seed(0)
    captions = tuple(f"a.png#{n}" for n in range(4))
    pooled, patches = MoranMetric(), MoranMetric()
    pooled.update(of(captions, torch.rand(4, 3, generator=g)))
    assert pooled.findings(None).columns == {}
    maps = torch.rand(9, 3, generator=g)
    patches.update(of(("a.png",) * 9 + ("a.png#1",) * 9, torch.cat([maps, maps]).clamp_min(0.2) - 0.2))
    assert patches.findings(None).columns["moran_images"].max() <= 1


def of(ids: tuple[str, ...], codes: torch.Tensor) -> Batch:
    acts = PairedActs(ids, None, None)
    return Batch(acts, PairedCodes(ids, SparseCodes.from_dense(codes), None), acts)


def test_few_images_say_nothing_and_pooled_rows_have_no_map() -> None:
    _, parts = batches(LEAST_IMAGES - 1, 4)
    metric = MoranMetric()
    for batch in parts:
        metric.update(batch)
    assert np.isnan(metric.findings(None).columns["moran"]).all()
    fresh = MoranMetric()
    fresh.update(of(tuple("abc"), torch.ones(3, 2)))
    assert fresh.findings(None).columns == {}
