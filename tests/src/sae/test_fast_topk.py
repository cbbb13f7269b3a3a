"""The fast step is stock TopK: same losses, same gradients, same curve, same dictionary."""

from pathlib import Path

import pytest
import torch
from sae_lens import SAE
from sae_lens.config import SAETrainerConfig
from sae_lens.saes.sae import TrainingSAE, TrainStepInput
from sae_lens.training.sae_trainer import SAETrainer

from cliplens.sae import inference
from support.fast_classes import D_IN, D_SAE, K, stock_and_fast
from support.streams import Provider, paired


@pytest.mark.parametrize("n_dead", [0, 3, 40, D_SAE])
@pytest.mark.parametrize("options", [{}, {"rescale_acts_by_decoder_norm": False}, {"apply_b_dec_to_input": False}])
def test_losses_codes_and_gradients_equal_stock(options: dict, n_dead: int) -> None:
    stock, fast = stock_and_fast("topk", **options)
    x = torch.randn(32, D_IN, dtype=torch.float64)
    given = TrainStepInput(x, {}, torch.arange(D_SAE) < n_dead, 0, False)
    theirs, ours = stock.training_forward_pass(given), fast.training_forward_pass(given)
    torch.testing.assert_close(ours.feature_acts.to_dense(), theirs.feature_acts, atol=1e-12, rtol=0)
    torch.testing.assert_close(ours.sae_out, theirs.sae_out, atol=1e-12, rtol=0)
    for name, loss in theirs.losses.items():
        torch.testing.assert_close(ours.losses[name], loss, atol=1e-12, rtol=1e-12)
    theirs.loss.backward()
    ours.loss.backward()
    for (name, expected), found in zip(stock.named_parameters(), fast.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad, atol=1e-10, rtol=1e-9, msg=lambda m, n=name: f"{n}: {m}")


def test_without_a_mask_of_dead_latents() -> None:
    stock, fast = stock_and_fast("topk")
    given = TrainStepInput(torch.randn(8, D_IN, dtype=torch.float64), {}, None, 0, False)
    assert fast.training_forward_pass(given).loss.item() == pytest.approx(
        stock.training_forward_pass(given).loss.item(), rel=1e-12
    )


@pytest.mark.parametrize("window", [1000, 3])
def test_the_stock_trainer_has_the_same_losses(window: int) -> None:
    curves, firing = [], []
    for sae in stock_and_fast("topk"):
        settings = SAETrainerConfig(10**6, 64, lr=3e-3, lr_end=3e-3, dead_feature_window=window)
        trainer = SAETrainer(settings, sae, Provider(paired(400, D_IN), 64))
        steps = [trainer.step(next(trainer.data_provider).double()).loss.item() for _ in range(40)]
        curves.append(torch.tensor(steps))
        firing.append(trainer.act_freq_scores)
    torch.testing.assert_close(curves[1], curves[0], atol=1e-9, rtol=1e-9)
    assert torch.equal(firing[1], firing[0])
    if window == 1000:
        assert curves[0][-1] < curves[0][0]


def test_saved_as_stock_topk(tmp_path: Path) -> None:
    stock, fast = stock_and_fast("topk")
    fast.save_inference_model(tmp_path / "fast")
    stock.save_inference_model(tmp_path / "stock")
    loaded, expected = SAE.load_from_disk(tmp_path / "fast"), SAE.load_from_disk(tmp_path / "stock")
    assert type(loaded) is type(expected)
    x = torch.randn(8, D_IN, dtype=torch.float64)
    torch.testing.assert_close(loaded.encode(x), expected.encode(x), atol=1e-12, rtol=0)
    torch.testing.assert_close(inference(fast).encode(x), expected.encode(x), atol=1e-12, rtol=0)
    fast.save_model(tmp_path / "training")
    torch.testing.assert_close(TrainingSAE.load_from_disk(tmp_path / "training").W_enc, fast.W_enc)


def test_no_gradient_passes_through_values_that_are_clipped() -> None:
    """Fewer than k latents are above 0, so some of those chosen are clipped."""
    theirs_sae, ours_sae = stock_and_fast("topk")
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
