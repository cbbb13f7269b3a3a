"""The streamed modality metric equals the functions on the whole, in any order and any number of parts."""

import numpy as np
import pytest
import torch

from cliplens.contracts import Metric
from cliplens.errors import InputError
from cliplens.tally import tally
from cliplens_plugins.fidelity import FidelityMetric
from cliplens_plugins.modality import ModalityMetric, classify, classify_fixed, cofiring, mds
from support.planted import batch_of, batches_of, planted_codes

PLANTED = planted_codes(700, 12, dead=2)
COLUMNS = {
    "mds": "pairs",
    "mds_half": "half",
    "mds_eps": "eps",
    "mds_ratio_of_means": "ratio_of_means",
    "energy": "energy",
    "mds_firing": "firing",
}


def test_every_column_equals_its_function() -> None:
    table = tally(batches_of(PLANTED, 100), [ModalityMetric()], decoder=None).table
    for column, variant in COLUMNS.items():
        np.testing.assert_allclose(table[column], mds(PLANTED.image, PLANTED.text, variant=variant).numpy(), atol=1e-13)
    np.testing.assert_allclose(table["cofiring"], cofiring(PLANTED.image, PLANTED.text).numpy(), atol=1e-13)
    np.testing.assert_allclose(table["fire_image"], (PLANTED.image > 0).double().mean(0).numpy(), atol=1e-15)
    np.testing.assert_allclose(table["fire_text"], (PLANTED.text > 0).double().mean(0).numpy(), atol=1e-15)
    assert table["alive"].tolist() == (PLANTED.classes != "dead").tolist()
    assert table["modality"].tolist() == classify_fixed(table["mds"]).tolist()
    assert table["modality_paper"].tolist() == classify(table["mds"]).tolist()


def test_classes_are_counted_by_every_rule() -> None:
    found = tally(batches_of(PLANTED, 100), [ModalityMetric()], decoder=None)
    (rows,) = found.tables.values()
    table = [found.table[column].tolist() for column in ("modality", "modality_paper", "modality_significant")]
    decided = ("ImgD", "TextD", "CrossD", "undecided", "dead")
    for row, column in zip(rows, table, strict=True):
        assert {name: row[name] for name in decided} == {name: column.count(name) for name in decided}
    fixed, paper, sure = table
    counts = {name: fixed.count(name) for name in ("ImgD", "TextD", "CrossD", "dead")}
    counts |= {f"{name}_paper": paper.count(name) for name in ("ImgD", "TextD", "CrossD")}
    counts |= {f"{name}_significant": sure.count(name) for name in ("ImgD", "TextD", "CrossD", "undecided")}
    assert {name: n for name, n in found.figures.items() if name[0] in "ITCdu"} == counts
    few = tally([batch_of(PLANTED.ids[:2], PLANTED.image[:2], PLANTED.text[:2])], [ModalityMetric()], decoder=None)
    assert [few.figures[f"{name}_significant"] for name in ("ImgD", "TextD", "CrossD")] == [0, 0, 0]


def test_every_column_explains_itself() -> None:
    table = tally(batches_of(PLANTED), [ModalityMetric(), FidelityMetric()], decoder=torch.zeros(38, 5)).table
    assert set(table.schema) == set(table)
    assert all(column.about.endswith(".") for column in table.schema.values())


@pytest.mark.parametrize("kind", [ModalityMetric, FidelityMetric])
def test_parts_merge_in_any_order_and_survive_saving(kind: type[Metric]) -> None:
    batches = batches_of(PLANTED, 50)
    whole = kind()
    for batch in batches:
        whole.update(batch)
    merged = kind()
    for part in (batches[9:], batches[:4], batches[4:9]):
        seen, restored = kind(), kind()
        for batch in reversed(part):
            seen.update(batch)
        restored.load_state(seen.state())
        merged.merge(restored)
    expected, found = whole.findings(None), merged.findings(None)
    for name, values in expected.columns.items():
        if values.dtype.kind == "f":
            np.testing.assert_allclose(found.columns[name], values, rtol=1e-12, atol=1e-12)
        else:
            assert found.columns[name].tolist() == values.tolist()


def test_one_modality_says_what_it_can() -> None:
    batch = batch_of(PLANTED.ids, PLANTED.image, None)
    found = tally([batch], [ModalityMetric(), FidelityMetric()], decoder=None)
    assert found.failed == ()
    assert "mds" not in found.table
    assert np.isnan(found.table["fire_text"]).all()
    assert found.notes == ("Modality scores need images and captions: one was given.",)
    assert found.figures["alive"] == int((PLANTED.image > 0).any(0).sum())


def test_an_unused_metric_says_so() -> None:
    found = tally([], [ModalityMetric(), FidelityMetric()], decoder=None)
    assert found.failed == ()
    assert len(found.notes) == 2


def test_metrics_of_two_kinds_do_not_merge() -> None:
    with pytest.raises(InputError, match="another ModalityMetric"):
        ModalityMetric().merge(FidelityMetric())


def test_replicates_can_be_left_out() -> None:
    batch = batch_of(PLANTED.ids, PLANTED.image, PLANTED.text)
    whole, quick = ModalityMetric(), ModalityMetric(n_replicates=0)
    for metric in (whole, quick):
        metric.update(batch)
    assert len(quick.parts()["replicates"].state()) == 0
    assert len(whole.parts()["replicates"].state()) > 0
    found, expected = quick.findings(None).columns, whole.findings(None).columns
    np.testing.assert_array_equal(found["mds"], expected["mds"])
    few = expected["mds_interval"] == "wilson"
    np.testing.assert_array_equal(found["mds_low"][few], expected["mds_low"][few])
