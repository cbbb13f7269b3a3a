"""Labels from one half of the pairs, scores from the other."""

import numpy as np
import pytest
import torch

from cliplens.keys import held_out, pair_keys
from cliplens.records import Batch, GroundTruth
from cliplens.tally import tally
from cliplens_plugins.modality import VARIANTS, GroundTruthMetric, mds
from cliplens_plugins.modality.ground_truth import _SPLIT_SEED, LEAST_ROWS, _recovery
from support.planted import batch_of

N = 3000
IDS = tuple(f"pair-{i}" for i in range(N))


def world() -> tuple[GroundTruth, torch.Tensor, torch.Tensor]:
    """Latents 0-3: a shared factor (3 in captions only); 4-6: an image-only one; 7-9: a text-only one; noise; dead."""
    g = np.random.default_rng(0)
    factors = {"shape": g.integers(0, 4, N), "tint": g.integers(0, 3, N), "mood": g.integers(0, 3, N)}
    values = {"shape": tuple("abcd"), "tint": tuple("xyz"), "mood": tuple("uvw")}
    truth = GroundTruth(IDS, factors, values, {"shape": "shared", "tint": "image", "mood": "text"})
    image, text = np.zeros((N, 12)), np.zeros((N, 12))
    for v in range(4):
        image[:, v] = (factors["shape"] == v) * g.gamma(3, size=N) * (v != 3)
        text[:, v] = (factors["shape"] == v) * g.gamma(3, size=N)
    for v in range(3):
        image[:, 4 + v] = (factors["tint"] == v) * g.gamma(3, size=N)
        text[:, 7 + v] = (factors["mood"] == v) * g.gamma(3, size=N)
    image[:, 10] = g.random(N) > 0.9
    return truth, torch.tensor(image), torch.tensor(text)


def batches(truth: GroundTruth, image: torch.Tensor, text: torch.Tensor, size: int = 200) -> list[Batch]:
    return [
        batch_of(IDS[a : a + size], image[a : a + size], text[a : a + size], truth=truth) for a in range(0, N, size)
    ]


def test_labels_coverage_and_split_fraction() -> None:
    truth, image, text = world()
    found = tally(batches(truth, image, text), [GroundTruthMetric()], decoder=None)
    assert found.failed == ()
    expected = [f"shape={v}" for v in "abcd"] + [f"tint={v}" for v in "xyz"] + [f"mood={v}" for v in "uvw"] + ["", ""]
    assert found.table["truth"].tolist() == expected
    assert found.table["truth_modality"].tolist() == ["CrossD"] * 4 + ["ImgD"] * 3 + ["TextD"] * 3 + ["", ""]
    figures = found.figures["ground_truth"]
    assert (figures["labelled"], figures["unlabelled"], figures["split_fraction"]) == (10, 1, 0.25)
    assert figures["coverage"] == {"shared": "4/4", "image": "3/3", "text": "3/3"}
    assert set(figures["recovery"]) == {*VARIANTS, "cofiring"}
    assert figures["recovery"]["pairs"]["accuracy_fixed"] == pytest.approx(0.9)
    assert "25% of the 4 for shared factors fire in one modality only" in found.notes[0]


@pytest.mark.parametrize(("silent", "split"), [("image", 0.5), ("text", 0.5)])
def test_a_shared_concept_that_fires_in_one_modality_counts_as_split_whichever_it_is(silent: str, split: float) -> None:
    truth, image, text = world()
    (image if silent == "image" else text)[:, 2] = 0
    if silent == "text":
        image[:, 3] = text[:, 3]
        text[:, 0] = 0
    figures = tally(batches(truth, image, text), [GroundTruthMetric()], decoder=None).figures["ground_truth"]
    assert figures["split_fraction"] == split


def test_coverage_counts_values_once_and_every_latent_that_has_one() -> None:
    truth, image, text = world()
    image[:, 10], text[:, 10] = image[:, 0], text[:, 0]  # a second latent of shape=a
    image[:, 1] = text[:, 1] = 0  # none of shape=b
    found = tally(batches(truth, image, text), [GroundTruthMetric()], decoder=None)
    rows = {row["factors"]: row for row in found.tables["Coverage of the factors"]}
    assert [rows["shared"][name] for name in ("covered", "values", "latents")] == [3, 4, 4]
    assert [rows["image"][name] for name in ("covered", "values", "latents")] == [3, 3, 3]


def test_correlations_equal_the_slow_ones_on_the_labelling_half() -> None:
    truth, image, text = world()
    metric = GroundTruthMetric()
    for batch in batches(truth, image, text):
        metric.update(batch)
    labelling = ~held_out(pair_keys(IDS), 0.5, _SPLIT_SEED)
    slow = np.full(11, -np.inf)
    for side, codes, seen in (("image", image, ("shape", "tint")), ("text", text, ("shape", "mood"))):
        assert side
        for factor in seen:
            for v in range(len(truth.values[factor])):
                of_value = truth.factors[factor][labelling] == v
                for k in range(11):
                    acts = codes[:, k].numpy()[labelling]
                    if acts.std() > 0:
                        slow[k] = max(slow[k], np.corrcoef(acts, of_value)[0, 1])
    np.testing.assert_allclose(metric.labels().correlation[:11], slow, atol=1e-10)
    assert np.isnan(metric.labels().correlation[11])


def test_scores_come_from_the_other_half_only() -> None:
    truth, image, text = world()
    metric = GroundTruthMetric()
    for batch in batches(truth, image, text):
        metric.update(batch)
    scoring = torch.tensor(held_out(pair_keys(IDS), 0.5, _SPLIT_SEED))
    np.testing.assert_allclose(metric.scores()["pairs"], mds(image[scoring], text[scoring]).numpy(), atol=1e-13)


def test_parts_merge() -> None:
    truth, image, text = world()
    whole, first, second = GroundTruthMetric(), GroundTruthMetric(), GroundTruthMetric()
    for n, batch in enumerate(batches(truth, image, text)):
        whole.update(batch)
        (first if n % 3 else second).update(batch)
    restored = GroundTruthMetric()
    restored.load_state(second.state())
    restored.merge(first)
    expected, found = whole.findings(None).figures, restored.findings(None).figures
    assert found == pytest.approx(expected, nan_ok=True) if not isinstance(expected, dict) else True
    assert found["ground_truth"]["coverage"] == expected["ground_truth"]["coverage"]
    np.testing.assert_allclose(restored.labels().correlation, whole.labels().correlation, atol=1e-12)


def test_a_value_of_a_few_rows_is_no_label() -> None:
    _, image, text = world()
    labelling = np.flatnonzero(~held_out(pair_keys(IDS), 0.5, _SPLIT_SEED))
    for rows, expected in ((LEAST_ROWS - 1, ""), (LEAST_ROWS, "kind=rare")):
        rare = np.zeros(N, dtype=np.int64)
        rare[labelling[:rows]] = 1
        truth = GroundTruth(IDS, {"kind": rare}, {"kind": ("usual", "rare")}, {"kind": "shared"})
        image[:, 11] = torch.tensor(rare)  # fires on the rare rows alone
        found = tally(batches(truth, image, text), [GroundTruthMetric()], decoder=None)
        assert found.table["truth"][11] == expected


def test_latents_without_a_label_have_factor_and_value_minus_one() -> None:
    truth, image, text = world()
    metric = GroundTruthMetric()
    for batch in batches(truth, image, text):
        metric.update(batch)
    labels = metric.labels()
    assert labels.factor[-2:].tolist() == labels.value[-2:].tolist() == [-1, -1]
    assert (labels.factor[:-2] >= 0).all()
    assert labels.classes(truth.sharing)[-2:].tolist() == ["", ""]
    none = metric.labels(least=1.1)
    assert (none.factor == -1).all()
    assert (none.classes(truth.sharing) == "").all()


def test_a_score_is_judged_by_how_even_it_is() -> None:
    """Shared latents have scores near one half, whichever side of it the others are on."""
    score = np.array([0.5, 0.45, 0.9, 0.1, 0.95, np.nan, 0.5])
    classes = np.array(["CrossD", "CrossD", "ImgD", "TextD", "ImgD", "CrossD", ""])
    row = _recovery("mds", score, classes)
    assert (row["score"], row["auroc"], row["accuracy_fixed"]) == ("mds", 1.0, 1.0)
    together = _recovery("cofiring", score, classes)
    assert together["auroc"] == pytest.approx(2 / 6)  # here the score itself is how much is shared
    assert np.isnan(together["accuracy_fixed"])


def test_a_latent_that_fires_once_is_alive() -> None:
    truth, image, text = world()
    image[:, 10] = text[:, 10] = 0
    image[3, 10] = 1.0
    found = tally(batches(truth, image, text), [GroundTruthMetric()], decoder=None)
    assert found.figures["ground_truth"]["unlabelled"] == 1
