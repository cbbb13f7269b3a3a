"""Laws of the modality table: swapping the modalities mirrors it, scale does not matter, the dead stay dead."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cliplens.records import LatentTable
from cliplens.tally import tally
from cliplens_plugins.modality import InformationMetric, ModalityMetric, cofiring, modality_gap
from support.planted import Planted, batches_of, planted_codes

MIRRORED = {"ImgD": "TextD", "TextD": "ImgD", "CrossD": "CrossD", "undecided": "undecided", "dead": "dead"}


def table_of(planted: Planted) -> LatentTable:
    batches = [replace(b, targets={"odd": np.arange(len(b.ids)) % 2 == 1}) for b in batches_of(planted, 100)]
    found = tally(batches, [ModalityMetric(), InformationMetric()], decoder=None)
    assert found.failed == ()
    return found.table


@given(seed=st.integers(0, 1000))
@settings(max_examples=6, deadline=None)
def test_swapping_the_modalities_mirrors_every_column(seed: int) -> None:
    planted = planted_codes(400, 6, seed=seed, dead=1)
    here = table_of(planted)
    there = table_of(replace(planted, image=planted.text, text=planted.image))
    for column in ("mds", "mds_half", "mds_ratio_of_means", "energy", "mds_firing"):
        np.testing.assert_allclose(there[column], 1 - here[column], atol=1e-12)
    np.testing.assert_allclose(there["mds_low"], 1 - here["mds_high"], atol=1e-10)
    np.testing.assert_allclose(there["mds_high"], 1 - here["mds_low"], atol=1e-10)
    for column in ("cofiring", "mds_q", "pid_redundancy", "pid_synergy"):
        np.testing.assert_allclose(there[column], here[column], atol=1e-10)
    np.testing.assert_allclose(there["pid_unique_image"], here["pid_unique_text"], atol=1e-10)
    for column in ("modality", "modality_paper", "modality_significant"):
        assert there[column].tolist() == [MIRRORED[c] for c in here[column]]


@given(seed=st.integers(0, 1000), scale=st.floats(1e-3, 1e3))
@settings(max_examples=6, deadline=None)
def test_the_scale_of_the_codes_changes_no_score(seed: int, scale: float) -> None:
    planted = planted_codes(300, 5, seed=seed)
    here, there = table_of(planted), table_of(replace(planted, image=planted.image * scale, text=planted.text * scale))
    for column in set(here) - {"mds_eps"}:
        if here[column].dtype.kind == "f":
            np.testing.assert_allclose(there[column], here[column], atol=1e-9)
        else:
            assert there[column].tolist() == here[column].tolist()


def test_dead_latents_are_nan_or_dead_in_every_column() -> None:
    table = table_of(planted_codes(300, 4, dead=2))
    for column in set(table) - {
        "latent",
        "alive",
        "fire_image",
        "fire_text",
        "mds_pairs",
        "mds_pictures",
        "mds_interval",
    }:
        dead = table[column][-2:]
        assert (dead == "dead").all() if dead.dtype == object else np.isnan(dead).all(), column
    assert table["mds_pairs"][-2:].tolist() == table["mds_pictures"][-2:].tolist() == [0, 0]
    assert not table["alive"][-2:].any()


@given(seed=st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_co_firing_and_the_gap_keep_their_range_and_do_not_care_which_side_is_which(seed: int) -> None:
    planted = planted_codes(200, 5, seed=seed)
    phi = cofiring(planted.image, planted.text).numpy()
    living = ~np.isnan(phi)
    assert (np.abs(phi[living]) <= 1 + 1e-12).all()
    np.testing.assert_allclose(cofiring(planted.text, planted.image).numpy(), phi, atol=1e-14)
    g = torch.Generator().manual_seed(seed)
    x, y = torch.randn(30, 5, generator=g), torch.randn(40, 5, generator=g) + 0.3
    here, there = modality_gap(x, y), modality_gap(y, x)
    assert there == pytest.approx(here, abs=1e-12)
    assert modality_gap(7 * x, y / 3) == pytest.approx(here, abs=1e-6)
    assert 0 <= here["centroid"] <= 2
    assert 0 <= here["separable"] <= 1
    assert here["energy"] >= 0
