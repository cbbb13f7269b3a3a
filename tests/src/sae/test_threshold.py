"""The threshold of a BatchTopK dictionary is measured after training, so that k latents fire per row."""

from pathlib import Path

import pytest
import torch
from sae_lens import SAE, BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig

from cliplens.sae import calibration_of, dictionary_config, train
from cliplens.sae.architectures.faster import FAST_FROM
from cliplens.sae.configs import threshold_rate
from cliplens.sae.dictionary import Dictionary
from cliplens.sae.threshold import calibrate
from support.streams import Provider, paired

D_IN, D_SAE, K = 16, 48, 4


def trained(architecture: str = "batchtopk", steps: int = 24, d_sae: int = D_SAE, **options: object) -> Dictionary:
    config = dictionary_config(architecture, D_IN, d_sae, k=K)
    return train(config, Provider(paired(600, D_IN), 64), samples=64 * steps, **options)


def fired(dictionary: Dictionary) -> float:
    codes = dictionary.encode(paired(600, D_IN))
    return (len(codes.image.values) + len(codes.text.values)) / 1200


@pytest.mark.parametrize(
    ("architecture", "d_sae"), [("batchtopk", D_SAE), ("matryoshka_batchtopk", D_SAE), ("batchtopk", FAST_FROM)]
)
@pytest.mark.parametrize("steps", [6, 24, 120])
def test_k_latents_fire_per_row_after_a_training_of_any_length(architecture: str, d_sae: int, steps: int) -> None:
    made = trained(architecture, steps, d_sae)
    measured = calibration_of(made.sae.cfg.metadata)
    assert measured.l0 == pytest.approx(K, rel=2e-3)  # rows that are read twice have equal values
    assert fired(made) == pytest.approx(K, rel=0.03 if steps > 20 else 0.1)  # the rows measured are a sample of these


def test_the_running_mean_lags_behind_and_is_told() -> None:
    measured = calibration_of(trained(steps=24).sae.cfg.metadata)
    assert measured.running_threshold < measured.threshold
    assert measured.running_l0 > 1.05 * K
    assert f"would be {measured.running_l0:.3g}" in str(measured)


def test_stock_saelens_opens_it_with_that_threshold(tmp_path: Path) -> None:
    made = trained(save_to=tmp_path / "sae")
    stock, acts = SAE.load_from_disk(tmp_path / "sae" / "image"), paired(600, D_IN)
    assert stock.cfg.architecture() == "jumprelu"
    measured = calibration_of(stock.cfg.metadata)
    assert measured == calibration_of(made.sae.cfg.metadata)
    torch.testing.assert_close(stock.threshold, torch.full((D_SAE,), measured.threshold))
    assert torch.equal(stock.encode(acts.image), made.encode(acts).image.dense())


def sae(k: float = 2.0) -> BatchTopKTrainingSAE:
    torch.manual_seed(0)
    return BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(d_in=8, d_sae=12, k=k))


@pytest.mark.parametrize("k", [0.5, 2.0, 5.0])
def test_the_threshold_lies_between_the_two_values_around_k_per_row(k: float) -> None:
    made, batches = sae(k), list(torch.randn(5, 30, 8).unbind())
    measured = calibrate(made, iter(batches))
    values = torch.cat([made.encode_with_hidden_pre(b)[1] for b in batches]).flatten().sort(descending=True).values
    wanted = int(k * 150)
    assert values[wanted] < made.topk_threshold < values[wanted - 1]
    assert measured.l0 == wanted / 150
    assert measured.rows == 150
    assert measured.running_l0 == pytest.approx(float((values > 0).sum()) / 150)


def test_a_wide_dictionary_is_measured_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, parts, batches = sae(), sae(), list(torch.randn(5, 30, 8).unbind())
    expected = calibrate(whole, batches)
    monkeypatch.setattr("cliplens.sae.threshold._ENTRIES", 7 * 12)
    found = calibrate(parts, batches)
    assert (found.rows, found.l0, found.running_l0) == (expected.rows, expected.l0, expected.running_l0)
    assert found.threshold == pytest.approx(expected.threshold, abs=1e-6)


def test_where_fewer_values_are_positive_all_of_them_fire() -> None:
    made = sae(5.0)
    with torch.no_grad():
        made.b_enc.fill_(-0.05)
    measured = calibrate(made, [torch.randn(50, 8)])
    assert made.topk_threshold == 0
    assert 0 < measured.l0 < 5


def test_other_architectures_and_broken_weights_are_left_as_they_are() -> None:
    assert calibration_of(trained("topk").sae.cfg.metadata) is None
    assert calibrate(sae(), []) is None
    made = sae()
    with torch.no_grad():
        made.W_enc[0, 0] = float("nan")
    assert calibrate(made, [torch.randn(50, 8)]) is None
    assert made.topk_threshold == 0


def test_data_that_end_with_the_training_are_enough() -> None:
    rows = [torch.randn(32, D_IN) for _ in range(10)]
    made = train(dictionary_config("batchtopk", D_IN, D_SAE, k=K), iter(rows), samples=320, batch_size=32)
    assert calibration_of(made.sae.cfg.metadata).rows == 32


def test_a_stock_runner_gets_a_rate_whose_mean_is_of_the_last_fifth() -> None:
    config = dictionary_config("batchtopk", D_IN, D_SAE, k=K)
    for steps in (50, 400, 2_000):
        rate = threshold_rate(config, steps)["topk_threshold_lr"]
        assert (1 - rate) ** (steps / 5) == pytest.approx(0.01)
    assert threshold_rate(config, 100_000)["topk_threshold_lr"] == config.topk_threshold_lr
    assert threshold_rate(dictionary_config("topk", D_IN, D_SAE, k=K), 50) == {}


def test_equal_values_at_the_threshold_are_not_counted_as_firing() -> None:
    made, same = sae(k=1.5), torch.randn(8).expand(8, 8)
    measured = calibrate(made, iter([same]))
    fires = made.encode_with_hidden_pre(same)[1] > made.topk_threshold
    assert measured.l0 == int(fires.sum()) / 8
