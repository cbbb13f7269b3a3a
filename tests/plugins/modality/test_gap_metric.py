"""The gap of a run: the draw, what is taken out, and that neither batches nor merges matter."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cliplens.keys import hashed, pair_keys
from cliplens.records import Batch, PairedActs
from cliplens.tally import tally
from cliplens_plugins.modality import GapMetric, classify_fixed, draw, mds, modality_gap, without_latents
from support.planted import Planted, batches_of, planted_codes


def decoder_of(planted: Planted) -> torch.Tensor:
    return torch.randn(len(planted.classes), 12, generator=torch.Generator().manual_seed(3)).double()


def raw_of(planted: Planted) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(4)
    noise = torch.randn(2, len(planted.ids), 12, generator=g, dtype=torch.float64)
    decoder = decoder_of(planted)
    return {"image": planted.image @ decoder + noise[0], "text": planted.text @ decoder + noise[1]}


def batches(planted: Planted, size: int) -> list[Batch]:
    raw = raw_of(planted)
    out = []
    for n, batch in enumerate(batches_of(planted, size)):
        rows = slice(n * size, n * size + len(batch.ids))
        out.append(replace(batch, raw=PairedActs(batch.ids, raw["image"][rows], raw["text"][rows])))
    return out


def test_the_rows_of_the_table_equal_the_functions_on_the_draw() -> None:
    planted = planted_codes(500, 8)
    found = tally(batches(planted, 64), [GapMetric(200)], decoder=decoder_of(planted))
    assert found.failed == ()
    rows = np.argsort(hashed(pair_keys(planted.ids), draw._SEED))[:200]
    raw, decoder = raw_of(planted), decoder_of(planted)
    first, second, control = found.tables["Modality gap"]
    assert {k: first[k] for k in ("centroid", "separable", "energy")} == pytest.approx(
        modality_gap(raw["image"][rows], raw["text"][rows]), abs=1e-10
    )
    classes = classify_fixed(mds(planted.image, planted.text).numpy())
    gone = np.isin(classes, ["ImgD", "TextD"])
    codes = {"image": planted.image, "text": planted.text}
    left = [without_latents(raw[m][rows], c[rows], decoder, gone) for m, c in codes.items()]
    assert second["latents"] == gone.sum() >= 16
    assert {k: second[k] for k in ("centroid", "separable", "energy")} == pytest.approx(modality_gap(*left), abs=1e-10)
    assert control["latents"] == (classes == "CrossD").sum()
    assert found.figures["modality_gap"]["as they are"]["centroid"] == first["centroid"]


def test_latents_that_make_the_gap_are_those_whose_removal_closes_it() -> None:
    planted = planted_codes(600, 8)
    found = tally(batches(planted, 100), [GapMetric()], decoder=decoder_of(planted)).tables["Modality gap"]
    as_is, without, control = (row["centroid"] for row in found)
    assert without < as_is
    assert without < control


@given(seed=st.integers(0, 500), size=st.integers(11, 200))
@settings(max_examples=8, deadline=None)
def test_batches_and_merges_do_not_matter(seed: int, size: int) -> None:
    planted = planted_codes(250, 4, seed=seed)
    whole, merged = GapMetric(100), GapMetric(100)
    whole.update(batches(planted, 250)[0])
    for batch in reversed(batches(planted, size)):
        one, restored = GapMetric(100), GapMetric(100)
        one.update(batch)
        restored.load_state(one.state())
        merged.merge(restored)
    decoder = decoder_of(planted)
    expected, found = (m.findings(decoder).figures["modality_gap"] for m in (whole, merged))
    for what, gap in expected.items():
        assert found[what] == pytest.approx(gap, rel=1e-12, abs=1e-12)


def test_the_control_takes_out_exactly_as_many_latents_where_there_are_more() -> None:
    planted = planted_codes(400, 8)
    kept = np.flatnonzero((planted.classes == "CrossD") | (np.arange(24) % 8 < 2))
    some = Planted(planted.ids, planted.image[:, kept], planted.text[:, kept], planted.classes[kept])
    _, one_sided, control = tally(batches(some, 100), [GapMetric()], decoder=decoder_of(some)).tables["Modality gap"]
    assert 0 < one_sided["latents"] < 8
    assert control["latents"] == one_sided["latents"]
