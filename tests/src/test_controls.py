"""Controls: an untrained dictionary and permuted pairs, beside the figures of the same pairs."""

import numpy as np
import pytest
import torch
from scipy.stats import t as student

from cliplens.errors import InputError
from cliplens.records import Batch, PairedActs
from cliplens.run import Settings
from cliplens.run.controls import RESEEDS, SINGLE, Scored, _random, controls, first_batches, notes_of, table_of
from cliplens.run.trained_controls import shuffled_weights
from cliplens.statistics import mean_difference, share_difference
from cliplens.tally import tally
from cliplens_plugins.monosemanticity import MonosemanticityMetric
from support.planted import batches_of, planted_codes
from support.tiny import tiny_images, tiny_model

PLANTED = planted_codes(900, 12, seed=2)


def decoder() -> torch.Tensor:
    draw = torch.Generator().manual_seed(0)
    rows = torch.randn(36, 24, generator=draw, dtype=torch.float64)
    return torch.nn.functional.normalize(rows, dim=1)


def scored() -> list[Batch]:
    judge = torch.randn(900, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    unit = torch.nn.functional.normalize(judge, dim=1)
    out = []
    for n, batch in enumerate(batches_of(PLANTED, 300, decoder=decoder())):
        rows = unit[300 * n : 300 * n + 300]
        out.append(Batch(batch.acts, batch.codes, batch.reconstruction, {"judge": PairedActs(batch.ids, rows, rows)}))
    return out


def test_a_dictionary_that_fits_is_beyond_an_untrained_one_and_its_cofiring_beyond_permuted_pairs() -> None:
    found = controls(scored(), decoder())
    assert found["explained_variance"]["untrained"]["beyond"]
    assert found["explained_variance"]["untrained"]["value"] > 0.8
    assert found["cofiring"]["permuted"]["beyond"]
    assert abs(found["cofiring"]["permuted"]["control"]) < 0.05
    assert found[SINGLE]["untrained"]["value"] == pytest.approx(2 / 3, abs=0.1)
    row = found[SINGLE]["untrained"]
    assert row["beyond"] == (row["low"] > 0)


def test_wide_dictionaries_are_controlled_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = controls(scored(), decoder())
    monkeypatch.setattr("cliplens.run.controls._ENTRIES", 7 * 36)
    parts = controls(scored(), decoder())
    assert whole.keys() == parts.keys()
    for figure, by_control in whole.items():
        for control, row in by_control.items():
            assert parts[figure][control] == pytest.approx(row, abs=1e-9, nan_ok=True), (figure, control)


def test_what_too_few_samples_leave_out_is_said_to_be_not_measured() -> None:
    codes = planted_codes(15, 12, seed=2)
    judge = torch.nn.functional.normalize(
        torch.randn(15, 5, generator=torch.Generator().manual_seed(1)).double(), dim=1
    )
    (plain,) = batches_of(codes, 15, decoder=decoder())
    judged = {"judge": PairedActs(plain.ids, judge, judge)}
    found = controls([Batch(plain.acts, plain.codes, plain.reconstruction, judged)], decoder())
    assert np.isnan(found["embsim_image"]["untrained"]["value"])
    (row,) = (r for r in table_of(found) if r["figure"] == "embsim_image")
    assert row["verdict"] == "not measured"
    evidence, missing = notes_of(found)[:2]
    assert "no evidence" in evidence
    assert "embsim" not in evidence
    assert missing.startswith("Not measured beside their control, for want of samples: ")
    assert "embsim_image (untrained)" in missing


@pytest.mark.parametrize("entries", [2**22, 13])
def test_random_codes_and_what_they_rebuild_are_those_of_the_dense_matrix(
    entries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cliplens.run.controls._ENTRIES", entries)
    draw = torch.Generator().manual_seed(0)
    acts, own = torch.randn(30, 4, generator=draw), torch.randn(6, 4, generator=draw)
    products = acts @ own.T
    least = products.topk(5, dim=1).values[:, -1:]
    dense = torch.where(products >= least, products, 0.0).clamp_min(0)
    codes, rebuilt = _random(acts, own, 5)
    torch.testing.assert_close(codes.dense(), dense)
    assert torch.equal(torch.stack([codes.rows, codes.latents], 1), dense.nonzero())
    torch.testing.assert_close(rebuilt, dense @ own)


def test_of_many_latents_some_are_drawn_for_all_figures_but_explained_variance(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = controls(scored(), decoder())
    monkeypatch.setattr("cliplens.run.controls.LATENTS", 20)
    some = controls(scored(), decoder())
    assert some.keys() == whole.keys()
    assert some["explained_variance"]["untrained"] == pytest.approx(whole["explained_variance"]["untrained"], abs=1e-12)
    drawn = np.sort(np.random.default_rng(17).choice(36, 20, replace=False))
    table = tally(scored(), [MonosemanticityMetric()], decoder=None).table
    assert some["ms_image"]["untrained"]["value"] == pytest.approx(np.nanmean(table["ms_image"][drawn]))
    assert some["ms_image"]["untrained"]["value"] != whole["ms_image"]["untrained"]["value"]


def test_a_judge_that_knows_nothing_is_within_its_control_and_a_note_says_so() -> None:
    found = controls(scored(), decoder())
    row = found["ms_image"]["untrained"]
    assert row["low"] < 0 < row["high"]
    assert not row["beyond"]
    (note,) = notes_of(found)
    assert "ms_image (untrained)" in note
    assert "cofiring" not in note
    verdicts = {(r["figure"], r["against"]): r["verdict"] for r in table_of(found)}
    assert verdicts["ms_image", "untrained"] == "within the control"
    assert verdicts["cofiring", "permuted"] == "above the control"


def test_a_figure_below_its_control_is_no_evidence_either() -> None:
    found = controls(scored(), decoder(), {"untrained_model": [of_seed(0, 0.0)], "frozen_decoder": [of_seed(0, 0.0)]})
    worse = controls(of_seed(1, 2.0)[0], decoder(), {"frozen_decoder": [of_seed(0, 0.0)]})
    row = worse["explained_variance"]["frozen_decoder"]
    assert row["high"] < 0
    assert not row["beyond"]
    verdicts = {(r["figure"], r["against"]): r["verdict"] for r in table_of(worse)}
    assert verdicts["explained_variance", "frozen decoder"] == "below the control"
    assert any("explained_variance (frozen decoder)" in note for note in notes_of(worse))
    assert "permuted" not in found[SINGLE]


def test_the_interval_of_explained_variance_resamples_pictures() -> None:
    row = controls(scored(), decoder())["explained_variance"]["untrained"]
    assert row["low"] < row["difference"] < row["high"]
    assert row["value"] - row["control"] == pytest.approx(row["difference"], abs=1e-12)
    acts = [b.acts.of(m) for b in scored() for m in ("image", "text")]
    rebuilt = [b.reconstruction.of(m) for b in scored() for m in ("image", "text")]
    x, back = torch.cat(acts), torch.cat(rebuilt)
    assert row["value"] == pytest.approx(float(1 - (x - back).square().sum() / (x - x.mean(0)).square().sum()))


def test_value_and_control_are_the_same_on_every_call() -> None:
    assert table_of(controls(scored(), decoder())) == table_of(controls(scored(), decoder()))


def test_one_modality_has_the_untrained_control_alone() -> None:
    batch = scored()[0]
    codes = type(batch.codes)(batch.ids, batch.codes.image, None)
    acts = PairedActs(batch.ids, batch.acts.image, None)
    found = controls([Batch(acts, codes, PairedActs(batch.ids, batch.reconstruction.image, None))], decoder())
    assert set(found) == {"explained_variance"}
    assert set(found["explained_variance"]) == {"untrained"}


def test_only_the_first_batches_are_kept() -> None:
    kept: list[Batch] = []
    assert len(list(first_batches(iter(scored()), kept, pairs=400))) == 3
    assert [len(batch.ids) for batch in kept] == [300, 300]


@pytest.mark.parametrize(
    ("a", "b", "expected"), [((56, 70), (48, 80), (0.0524, 0.3339)), ((9, 10), (3, 10), (0.1705, 0.8090))]
)
def test_the_difference_of_two_shares_has_newcombes_interval(
    a: tuple[int, int], b: tuple[int, int], expected: tuple[float, float]
) -> None:
    """The two examples of Newcombe's paper (method 10)."""
    _, low, high = share_difference(*a, *b)
    assert (low, high) == pytest.approx(expected, abs=1e-4)


def test_differences_without_samples_are_nan() -> None:
    assert np.isnan(mean_difference(np.array([np.nan]), np.array([1.0]))).all()
    assert np.isnan(share_difference(0, 0, 1, 2)).all()


def test_the_interval_of_a_difference_of_means_covers() -> None:
    g = np.random.default_rng(4)
    covered = []
    for _ in range(200):
        _, low, high = mean_difference(g.normal(0.3, 1, 80), g.normal(0, 1, 60), draws=300)
        covered.append(low <= 0.3 <= high)
    assert np.mean(covered) >= 0.9


def of_seed(seed: int, noise: float) -> Scored:
    """The scored batches with noise on the reconstruction, as from another seed."""
    draw = torch.Generator().manual_seed(seed)
    made = []
    for batch in scored():
        image, text = (
            rows + noise * torch.randn(rows.shape, generator=draw, dtype=rows.dtype)
            for rows in (batch.reconstruction.image, batch.reconstruction.text)
        )
        made.append(Batch(batch.acts, batch.codes, PairedActs(batch.ids, image, text), batch.judged))
    return made, decoder()


def test_the_spread_over_seeds_is_a_prediction_interval_about_their_mean() -> None:
    seeds = [of_seed(n, 0.02 * (n + 1)) for n in range(3)]
    found = controls(scored(), decoder(), {RESEEDS: seeds})["explained_variance"]
    alone = [controls(batches, rows)["explained_variance"]["untrained"]["value"] for batches, rows in seeds]
    row = found[RESEEDS]
    half = student.ppf(0.975, 2) * np.std(alone, ddof=1) * np.sqrt(4 / 3)
    assert row["control"] == pytest.approx(np.mean(alone), abs=1e-12)
    assert row["value"] == found["untrained"]["value"]
    assert (row["low"], row["high"]) == pytest.approx((row["difference"] - half, row["difference"] + half), abs=1e-12)
    assert row["beyond"] == (row["low"] > 0 or row["high"] < 0)
    assert row["beyond"] == (abs(row["difference"]) > half)


@pytest.mark.parametrize(("noise", "beyond"), [(0.001, True), (3.0, False)])
def test_a_figure_that_moves_more_between_seeds_than_from_its_control_is_within_it(noise: float, beyond: bool) -> None:
    seeds = [of_seed(n, noise * n) for n in range(3)]
    found = controls(scored(), decoder(), {RESEEDS: seeds})
    assert found["explained_variance"]["untrained"]["beyond"] == beyond
    assert any("explained_variance (untrained)" in note for note in notes_of(found)) != beyond


def test_trained_controls_stand_beside_every_figure_and_seeds_count_as_no_control() -> None:
    same = of_seed(0, 0.0)
    found = controls(scored(), decoder(), {"frozen_decoder": [same], "untrained_model": [same], RESEEDS: [same] * 2})
    for figure in ("ms_image", "explained_variance", "cofiring", SINGLE):
        assert {"frozen_decoder", "untrained_model", RESEEDS} < set(found[figure])
        assert found[figure]["frozen_decoder"]["difference"] == 0
        assert not found[figure]["frozen_decoder"]["beyond"]
    verdicts = {(r["figure"], r["against"]): r["verdict"] for r in table_of(found)}
    assert verdicts["cofiring", "frozen decoder"] == "within the control"
    assert verdicts["cofiring", "reseeds"] == "as other seeds"
    (note,) = notes_of(found)
    assert "(reseeds)" not in note


def test_shuffled_weights_are_the_same_numbers_elsewhere_and_come_back_bit_for_bit() -> None:
    model, images = tiny_model(), tiny_images(2)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    seen = model.encode_image(images)
    with shuffled_weights(model):
        for name, p in model.named_parameters():
            assert torch.equal(p.flatten().sort().values, before[name].flatten().sort().values)
        untrained = model.encode_image(images)
        assert torch.isfinite(untrained).all()
        assert not torch.allclose(untrained, seen, atol=1e-2)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert torch.equal(model.encode_image(images), seen)


def test_controls_of_a_dictionary_made_elsewhere_are_refused() -> None:
    with pytest.raises(InputError, match="--controls with a dictionary that the run trains"):
        Settings(pairs="world:10", sae="somewhere", controls=True)
