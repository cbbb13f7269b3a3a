"""The fast steps of classes with losses on pairs: same losses, gradients, curve and saved dictionary as theirs."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sae_lens import SAE
from sae_lens.config import SAETrainerConfig
from sae_lens.saes.sae import TrainStepInput
from sae_lens.training.sae_trainer import SAETrainer

from cliplens.errors import InputError
from cliplens.sae.architectures.fast_paired import PairedFirings, sparse_alignment, sparse_group_penalty
from cliplens.sae.architectures.group_sparse import group_penalty
from cliplens.sae.architectures.iso_energy import alignment
from support.fast_classes import D_IN, D_SAE, stock_and_fast

CLASSES = {
    "group_sparse": {"group_coefficient": 0.3},
    "masked_group_sparse": {"group_coefficient": 0.3, "mask_probability": 0.5},
    "iso_energy": {"align_coefficient": 0.05},
}


def pairs(count: int, seed: int = 0) -> torch.Tensor:
    """Return pictures and captions that share much, so that they share latents."""
    g = torch.Generator().manual_seed(seed)
    shared = torch.randn(count, D_IN, dtype=torch.float64, generator=g)
    return torch.cat([shared + 0.3 * torch.randn(count, D_IN, dtype=torch.float64, generator=g) for _ in range(2)])


@pytest.mark.parametrize("stock", CLASSES)
@pytest.mark.parametrize("n_dead", [0, 40])
@pytest.mark.parametrize("options", [{}, {"rescale_acts_by_decoder_norm": False}, {"apply_b_dec_to_input": False}])
def test_losses_codes_and_gradients_equal_stock(stock: str, options: dict, n_dead: int) -> None:
    theirs_sae, ours_sae = stock_and_fast(stock, **CLASSES[stock], **options)
    given = TrainStepInput(pairs(16), {}, torch.arange(D_SAE) < n_dead, 0, False)
    outputs = []
    for sae in (theirs_sae, ours_sae):
        torch.manual_seed(7)  # masks are drawn
        outputs.append(sae.training_forward_pass(given))
        outputs[-1].loss.backward()
    theirs, ours = outputs
    torch.testing.assert_close(ours.feature_acts.to_dense(), theirs.feature_acts, atol=1e-12, rtol=0)
    assert ours.losses.keys() == theirs.losses.keys()
    assert all(abs(loss) > 1e-3 for name, loss in theirs.losses.items() if n_dead or not name.startswith("aux"))
    for name, loss in theirs.losses.items():
        torch.testing.assert_close(ours.losses[name], loss, atol=1e-12, rtol=1e-12)
    for (name, expected), found in zip(theirs_sae.named_parameters(), ours_sae.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad, atol=1e-10, rtol=1e-9, msg=lambda m, n=name: f"{n}: {m}")


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 5), st.integers(1, 6), st.integers(6, 9), st.integers(0, 99))
def test_losses_of_firings_are_those_of_dense_codes(count: int, k: int, d_sae: int, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    at = torch.stack([torch.randperm(d_sae, generator=g)[:k].sort().values for _ in range(2 * count)])
    values = (torch.randn(2 * count, k, generator=g, dtype=torch.float64) + 0.3).relu()
    fired = PairedFirings(values[:count], values[count:], at[:count], at[count:])
    dense = torch.zeros(2 * count, d_sae, dtype=torch.float64).scatter(1, at, values)
    torch.testing.assert_close(sparse_group_penalty(fired), group_penalty(dense), atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(sparse_alignment(fired), alignment(dense), atol=1e-12, rtol=1e-12)


def test_silent_codes_have_a_gradient() -> None:
    zero = torch.zeros(2, 3, requires_grad=True)
    at = torch.tensor([[0, 1, 2], [1, 2, 3]])
    fired = PairedFirings(zero[:1], zero[1:], at[:1], at[1:])
    (sparse_group_penalty(fired) + sparse_alignment(fired)).backward()
    assert torch.isfinite(zero.grad).all()


@pytest.mark.parametrize("stock", CLASSES)
def test_the_stock_trainer_has_the_same_losses_while_latents_die(stock: str) -> None:
    curves, firing, dead = [], [], []
    for sae in stock_and_fast(stock, **CLASSES[stock]):
        torch.manual_seed(3)
        settings = SAETrainerConfig(10**6, 64, lr=3e-3, lr_end=3e-3, dead_feature_window=3)
        trainer = SAETrainer(settings, sae, iter([]))
        curves.append(torch.tensor([trainer.step(pairs(32, seed)).loss.item() for seed in range(30)]))
        firing.append(trainer.act_freq_scores)
        dead.append(int(trainer.dead_neurons.sum()))
    torch.testing.assert_close(curves[1], curves[0], atol=1e-9, rtol=1e-9)
    assert torch.equal(firing[1], firing[0])
    assert dead[0] == dead[1]


@pytest.mark.parametrize("stock", CLASSES)
def test_saved_as_stock_topk(stock: str, tmp_path: Path) -> None:
    theirs, ours = stock_and_fast(stock, **CLASSES[stock])
    for name, sae in (("theirs", theirs), ("ours", ours)):
        sae.save_inference_model(tmp_path / name)
    loaded, expected = SAE.load_from_disk(tmp_path / "ours"), SAE.load_from_disk(tmp_path / "theirs")
    assert (type(loaded), loaded.cfg.architecture()) == (type(expected), "topk")
    torch.testing.assert_close(loaded.encode(pairs(4)), expected.encode(pairs(4)), atol=1e-12, rtol=0)


def test_an_odd_batch_is_refused() -> None:
    ours = stock_and_fast("iso_energy")[1]
    with pytest.raises(InputError, match="a paired batch"):
        ours.training_forward_pass(TrainStepInput(pairs(2)[:3], {}, None, 0, False))


def test_masks_are_drawn_in_training_only() -> None:
    theirs, ours = (sae.eval() for sae in stock_and_fast("masked_group_sparse", **CLASSES["masked_group_sparse"]))
    given = TrainStepInput(pairs(8), {}, None, 0, False)
    expected = theirs.training_forward_pass(given).loss
    torch.testing.assert_close(ours.training_forward_pass(given).loss, expected, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("stock", [*CLASSES, "topk"])
def test_dead_latents_beside_a_normalisation_of_rows_are_refused_as_by_stock(stock: str) -> None:
    for sae in stock_and_fast(stock, normalize_activations="layer_norm"):
        with pytest.raises(ValueError, match="does not support activation normalization"):
            sae.training_forward_pass(TrainStepInput(pairs(8), {}, torch.arange(D_SAE) < 9, 0, False))


@pytest.mark.parametrize("size", [1e-12, 1e-9, 1e-7, 1e-5, 1e-3])
def test_the_alignment_of_tiny_codes_is_bounded_as_that_of_dense_ones(size: float) -> None:
    """`cosine_similarity` takes norms below 1e-8 for 1e-8."""
    dense = size * torch.rand(4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    at = torch.arange(6).repeat(2, 1)
    fired = PairedFirings(dense[:2], dense[2:], at, at)
    torch.testing.assert_close(sparse_alignment(fired), alignment(dense), atol=1e-15, rtol=1e-9)
