"""The fast steps are stock BatchTopK and Matryoshka BatchTopK: same losses, gradients, curve and saved dictionary."""

from pathlib import Path

import pytest
import torch
from sae_lens import SAE
from sae_lens.config import SAETrainerConfig
from sae_lens.saes.sae import TrainingSAE, TrainStepInput
from sae_lens.training.sae_trainer import SAETrainer

from cliplens.sae import inference
from cliplens.sae.architectures.sparse_step import starts_of
from cliplens.sae.train import use_fused_adam
from support.fast_classes import D_IN, D_SAE, K, stock_and_fast
from support.streams import Provider, paired

CLASSES = ("batchtopk", "matryoshka_batchtopk")


@pytest.mark.parametrize("stock", CLASSES)
@pytest.mark.parametrize("n_dead", [0, 3, 40, D_SAE])
@pytest.mark.parametrize("options", [{}, {"rescale_acts_by_decoder_norm": False}, {"apply_b_dec_to_input": False}])
def test_losses_codes_and_gradients_equal_stock(stock: str, options: dict, n_dead: int) -> None:
    theirs_sae, ours_sae = stock_and_fast(stock, **options)
    x = torch.randn(32, D_IN, dtype=torch.float64)
    given = TrainStepInput(x, {}, torch.arange(D_SAE) < n_dead, 0, False)
    theirs, ours = theirs_sae.training_forward_pass(given), ours_sae.training_forward_pass(given)
    assert ours.feature_acts.is_sparse
    torch.testing.assert_close(ours.feature_acts.to_dense(), theirs.feature_acts, atol=1e-12, rtol=0)
    torch.testing.assert_close(ours.sae_out, theirs.sae_out, atol=1e-12, rtol=0)
    assert ours.losses.keys() == theirs.losses.keys()
    for name, loss in theirs.losses.items():
        torch.testing.assert_close(ours.losses[name], loss, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(ours.loss, theirs.loss, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(ours_sae.topk_threshold, theirs_sae.topk_threshold, atol=1e-12, rtol=0)
    theirs.loss.backward()
    ours.loss.backward()
    for (name, expected), found in zip(theirs_sae.named_parameters(), ours_sae.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad, atol=1e-10, rtol=1e-9, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("option", [{"use_matryoshka_aux_loss": True}, {"normalize_activations": "layer_norm"}])
def test_options_without_a_sparse_form_take_the_stock_step(option: dict) -> None:
    n_dead = 20 if "use_matryoshka_aux_loss" in option else 0
    theirs_sae, ours_sae = stock_and_fast("matryoshka_batchtopk" if n_dead else "batchtopk", **option)
    given = TrainStepInput(torch.randn(8, D_IN, dtype=torch.float64), {}, torch.arange(D_SAE) < n_dead, 0, False)
    theirs, ours = theirs_sae.training_forward_pass(given), ours_sae.training_forward_pass(given)
    torch.testing.assert_close(ours.loss, theirs.loss, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("stock", CLASSES)
@pytest.mark.parametrize("window", [1000, 3])
def test_the_stock_trainer_has_the_same_losses(stock: str, window: int) -> None:
    curves, firing = [], []
    for sae in stock_and_fast(stock):
        settings = SAETrainerConfig(10**6, 64, lr=3e-3, lr_end=3e-3, dead_feature_window=window)
        trainer = SAETrainer(settings, sae, Provider(paired(400, D_IN), 64))
        steps = [trainer.step(next(trainer.data_provider).double()).loss.item() for _ in range(30)]
        curves.append(torch.tensor(steps))
        firing.append(trainer.act_freq_scores)
    torch.testing.assert_close(curves[1], curves[0], atol=1e-9, rtol=1e-9)
    assert torch.equal(firing[1], firing[0])


def test_a_fused_adam_takes_the_same_steps() -> None:
    weights = []
    for fused in (False, True):
        sae = stock_and_fast("batchtopk")[1]
        trainer = SAETrainer(SAETrainerConfig(10**6, 64, lr=3e-3, lr_end=3e-3), sae, iter([]))
        if fused:
            use_fused_adam(trainer)
        for seed in range(10):
            trainer.step(torch.randn(64, D_IN, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)))
        weights.append(trainer.sae.W_dec.detach().clone())
    torch.testing.assert_close(weights[1], weights[0], atol=1e-12, rtol=1e-10)
    assert not torch.equal(weights[0], stock_and_fast("batchtopk")[1].W_dec)


@pytest.mark.parametrize("stock", CLASSES)
def test_saved_as_the_stock_class(stock: str, tmp_path: Path) -> None:
    theirs, ours = stock_and_fast(stock)
    for sae in (theirs, ours):
        sae.topk_threshold.fill_(0.3)
    ours.save_inference_model(tmp_path / "ours")
    theirs.save_inference_model(tmp_path / "theirs")
    loaded, expected = SAE.load_from_disk(tmp_path / "ours"), SAE.load_from_disk(tmp_path / "theirs")
    assert type(loaded) is type(expected)
    x = torch.randn(8, D_IN, dtype=torch.float64)
    torch.testing.assert_close(loaded.encode(x), expected.encode(x), atol=1e-12, rtol=0)
    torch.testing.assert_close(inference(ours).encode(x), expected.encode(x), atol=1e-12, rtol=0)
    ours.save_model(tmp_path / "training")
    torch.testing.assert_close(TrainingSAE.load_from_disk(tmp_path / "training").W_enc, ours.W_enc)


def test_nan_in_activations_reaches_the_loss() -> None:
    _, ours = stock_and_fast("batchtopk")
    with torch.no_grad():
        ours.W_enc[0, 0] = torch.nan
    given = TrainStepInput(torch.randn(8, D_IN, dtype=torch.float64), {}, None, 0, False)
    assert ours.training_forward_pass(given).loss.isnan()


def test_runs_start_where_sorted_numbers_change() -> None:
    assert starts_of(torch.tensor([3, 1, 1]), 5).tolist() == [0, 0, 2, 2, 3]


@pytest.mark.parametrize("stock", CLASSES)
def test_no_gradient_passes_through_values_that_are_clipped(stock: str) -> None:
    """Fewer than k latents are above 0, so some of those chosen are clipped."""
    theirs_sae, ours_sae = stock_and_fast(stock)
    x = torch.randn(32, D_IN, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    for sae in (theirs_sae, ours_sae):
        with torch.no_grad():
            sae.b_enc.fill_(-float(((x - sae.b_dec) @ sae.W_enc).quantile(0.98)))
    given = TrainStepInput(x, {}, None, 0, False)
    theirs, ours = theirs_sae.training_forward_pass(given), ours_sae.training_forward_pass(given)
    assert 0 < int((ours.feature_acts.to_dense() > 0).sum()) < 32 * K
    theirs.loss.backward()
    ours.loss.backward()
    for expected, found in zip(theirs_sae.parameters(), ours_sae.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad, atol=1e-10, rtol=1e-9)


@pytest.mark.parametrize("stock", CLASSES)
@pytest.mark.parametrize("positive", [0, 3])
def test_the_threshold_follows_the_least_positive_value_where_fewer_are_positive_than_chosen(
    stock: str, positive: int
) -> None:
    theirs, ours = stock_and_fast(stock)
    for sae in (theirs, ours):
        with torch.no_grad():
            sae.W_enc.zero_()
            sae.b_enc.copy_((torch.arange(D_SAE) < positive) * (1.0 + torch.arange(D_SAE)))
            sae.topk_threshold.fill_(0.5)
        sae.training_forward_pass(TrainStepInput(torch.randn(5, D_IN, dtype=torch.float64), {}, None, 0, False))
    torch.testing.assert_close(ours.topk_threshold, theirs.topk_threshold, atol=1e-12, rtol=0)
    assert (float(ours.topk_threshold) == 0.5) == (positive == 0)
