"""Several captions of one picture: sums over pictures, calibrated nulls and intervals for 1, 2, 5 and mixed numbers."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cliplens.records import Batch, Findings, PairedActs, PairedCodes, SparseCodes
from cliplens_plugins.modality import ModalityMetric
from cliplens_plugins.modality.draw import PairsDraw
from cliplens_plugins.modality.pictures import picture_sums
from cliplens_plugins.modality.sums import Sums, add_pairs

CAPTIONS = ("1", "2", "5", "mixed")


def sizes(captions: str, pictures: int, g: np.random.Generator) -> np.ndarray:
    """How many captions each picture has."""
    return g.choice([1, 2, 3, 5, 9], pictures) if captions == "mixed" else np.full(pictures, int(captions))


def ids_of(counts: np.ndarray) -> tuple[str, ...]:
    return tuple(f"{p}.png" + (f"#{n}" if n else "") for p, count in enumerate(counts) for n in range(count))


def codes_of(ids: tuple[str, ...], image: np.ndarray, text: np.ndarray) -> PairedCodes:
    return PairedCodes(ids, *(SparseCodes.from_dense(torch.tensor(side)) for side in (image, text)))


def found(ids: tuple[str, ...], image: np.ndarray, text: np.ndarray, size: int = 700) -> Findings:
    metric = ModalityMetric()
    for a in range(0, len(ids), size):
        part = slice(a, a + size)
        acts = PairedActs(ids[part], torch.zeros(len(ids[part]), 1), torch.zeros(len(ids[part]), 1))
        metric.update(Batch(acts, codes_of(ids[part], image[part], text[part]), acts))
    return metric.findings(None)


@given(st.integers(0, 1000), st.integers(1, 30))
@settings(max_examples=15, deadline=None)
def test_sums_over_pictures_equal_their_definition_in_any_batches(seed: int, size: int) -> None:
    g = np.random.default_rng(seed)
    counts = sizes("mixed", 12, g)
    ids, n, k = ids_of(counts), int(counts.sum()), 5
    image, text = ((g.random((n, k)) < 0.4) * g.random((n, k)) for _ in range(2))
    order = g.permutation(n)
    sums, draw = Sums(), PairsDraw()
    for a in range(0, n, size):
        rows = order[a : a + size]
        codes = codes_of(tuple(ids[r] for r in rows), image[rows], text[rows])
        add_pairs(sums, codes)
        draw.update(codes)
    got = picture_sums(sums, draw)
    picture = np.repeat(np.arange(12), counts)
    total = image + text
    fires = total > 0
    d = np.where(fires, image / np.where(fires, total, 1) - 0.5, 0)
    n_c = np.stack([fires[picture == p].sum(0) for p in range(12)])
    d_c = np.stack([d[picture == p].sum(0) for p in range(12)])
    np.testing.assert_allclose(got.pictures, (n_c > 0).sum(0))
    np.testing.assert_allclose(got.n2, (n_c**2).sum(0))
    np.testing.assert_allclose(got.nd, (n_c * d_c).sum(0), atol=1e-12)
    np.testing.assert_allclose(got.d2, (d_c**2).sum(0), atol=1e-12)


RATES = (0.03, 0.1, 0.5)


def null(
    captions: str, agree: bool, seed: int, pictures: int = 600, k: int = 160, rates: tuple[float, ...] = RATES
) -> tuple[Findings, np.ndarray]:
    """Latents of true score one half: image or captions by a coin per picture (agree) or per pair."""
    g = np.random.default_rng(seed)
    counts = sizes(captions, pictures, g)
    there = np.repeat(g.random((pictures, k)) < g.choice(rates, k), counts, 0)
    coin = g.random((pictures, k)) < 0.5
    seen = np.repeat(coin, counts, 0) if agree else g.random(there.shape) < 0.5
    return found(ids_of(counts), (there & seen) * 1.0, (there & ~seen) * 1.0), counts


@pytest.mark.parametrize("captions", CAPTIONS)
@pytest.mark.parametrize("agree", [True, False])
def test_null_latents_are_not_significant(captions: str, agree: bool) -> None:
    columns = null(captions, agree, seed=1)[0].columns
    assert (columns["mds_q"] <= 0.05).mean() <= 0.05
    assert (columns["modality_significant"] == "ImgD").sum() == (columns["modality_significant"] == "TextD").sum() == 0


@pytest.mark.parametrize("captions", CAPTIONS)
@pytest.mark.parametrize("agree", [True, False])
def test_intervals_cover_or_are_flagged(captions: str, agree: bool) -> None:
    covered = {}
    for flag, rates in (("percentile", (0.6,)), ("wilson", (0.05, 0.2))):
        columns = null(captions, agree, seed=2, pictures=450, k=1000, rates=rates)[0].columns
        assert set(columns["mds_interval"]) == {flag}
        covered[flag] = ((columns["mds_low"] <= 0.5) & (columns["mds_high"] >= 0.5)).mean()
    assert 0.93 <= covered["percentile"] <= 0.97
    assert covered["wilson"] >= 0.93


@pytest.mark.parametrize("captions", CAPTIONS)
def test_latents_just_below_the_cut_are_seldom_called_significant(captions: str) -> None:
    g = np.random.default_rng(7)
    counts = sizes(captions, 400, g)
    there, coin = g.random((400, 500)) < 0.08, g.random((400, 500)) < 0.78
    there, seen = np.repeat(there, counts, 0), np.repeat(coin, counts, 0)
    columns = found(ids_of(counts), (there & seen) * 1.0, (there & ~seen) * 1.0).columns
    assert (columns["modality_significant"] == "ImgD").mean() < 0.05


def test_the_effective_number_lies_between_pictures_and_pairs() -> None:
    agreeing, counts = null("5", True, seed=9)
    columns = agreeing.columns
    np.testing.assert_allclose(columns["mds_effective"], columns["mds_pictures"], rtol=1e-9)
    columns = null("5", False, seed=9)[0].columns
    assert np.median(columns["mds_effective"] / columns["mds_pairs"]) > 0.8
    assert counts.sum() == 3000


def test_one_pair_per_picture_is_its_own_unit() -> None:
    columns = null("1", True, seed=9)[0].columns
    np.testing.assert_array_equal(columns["mds_pictures"], columns["mds_pairs"])
    np.testing.assert_array_equal(columns["mds_effective"], columns["mds_pairs"])


def test_what_nobody_can_tell_yet_is_undecided() -> None:
    image, text = np.zeros((400, 7)), np.zeros((400, 7))
    for latent in range(6):
        image[7 * latent : 7 * latent + latent + 1, latent] = 1.0
    image[:, 6], text[:, 6] = 1.0, 1.0
    got = found(tuple(f"p{i}" for i in range(400)), image, text)
    assert got.columns["modality_significant"].tolist() == ["undecided"] * 6 + ["CrossD"]
    assert got.figures["undecided_significant"] == 6
    (rows,) = got.tables.values()
    assert [row["undecided"] for row in rows] == [0, 0, 6]


def test_a_latent_that_fires_in_one_modality_is_never_significantly_crossed() -> None:
    image = np.zeros((400, 1))
    image[:300] = 1.0
    got = found(tuple(f"p{i}" for i in range(400)), image, np.zeros((400, 1)))
    assert got.columns["modality_significant"].tolist() == ["ImgD"]
