"""Alignment-aware dictionaries: their losses against definitions written out, and trained through to stock SAELens."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sae_lens import SAE
from sae_lens.registry import get_sae_training_class
from sae_lens.saes.sae import TrainingSAE, TrainStepInput, TrainStepOutput
from torch import Tensor

from cliplens.errors import InputError
from cliplens.sae import Dictionary, dictionary_config, inference, needs_pairs, train
from cliplens.sae.architectures.group_sparse import group_penalty
from cliplens.sae.architectures.iso_energy import alignment
from cliplens.sae.architectures.ncl import info_nce
from cliplens.sae.architectures.two_decoders import nearness
from support.streams import Pairs, Provider, paired

D_IN, D_SAE, ROWS = 16, 48, 400
ARCHITECTURES = ("group_sparse", "masked_group_sparse", "iso_energy", "two_decoders", "ncl")
STOCK_FORM = {"group_sparse": "topk", "masked_group_sparse": "topk", "iso_energy": "topk", "ncl": "standard"}


def codes(pairs: int = 6, d_sae: int = 10, seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return (torch.randn(2 * pairs, d_sae, generator=draw, dtype=torch.float64) - 0.3).relu()


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 7), st.integers(1, 12), st.integers(0, 99))
def test_group_penalty_by_its_definition(pairs: int, d_sae: int, seed: int) -> None:
    c = codes(pairs, d_sae, seed)
    slow = sum((c[m, k] ** 2 + c[pairs + m, k] ** 2) ** 0.5 for m in range(pairs) for k in range(d_sae)) / pairs
    assert group_penalty(c).item() == pytest.approx(float(slow), abs=1e-12)


def test_group_penalty_is_less_where_latents_are_shared_and_has_a_gradient_at_zero() -> None:
    shared, apart = torch.zeros(2, 4), torch.zeros(2, 4)
    shared[0, 1] = shared[1, 1] = 1.0
    apart[0, 1] = apart[1, 2] = 1.0
    assert group_penalty(shared) < group_penalty(apart)
    zero = torch.zeros(2, 4, requires_grad=True)
    group_penalty(zero).backward()
    assert torch.isfinite(zero.grad).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 7), st.integers(3, 12), st.integers(0, 99))
def test_alignment_by_its_definition(pairs: int, d_sae: int, seed: int) -> None:
    c = codes(pairs, d_sae, seed)
    total = 0.0
    for m in range(pairs):
        image, text = c[m].tolist(), c[pairs + m].tolist()
        for place in {image.index(max(image)), text.index(max(text))}:
            image[place] = text[place] = 0.0
        dot = sum(a * b for a, b in zip(image, text, strict=True))
        size = sum(a * a for a in image) ** 0.5 * sum(b * b for b in text) ** 0.5
        total += dot / size if size else 0.0
    assert alignment(c).item() == pytest.approx(total / pairs, abs=1e-9)


def test_info_nce_of_chance_and_of_perfect_pairs() -> None:
    assert info_nce(torch.ones(10, 4), 0.1).item() == pytest.approx(torch.tensor(5.0).log().item(), abs=1e-6)
    apart = torch.eye(5).repeat(2, 1)
    assert info_nce(apart, 0.01).item() < 1e-6
    assert info_nce(apart[[0, 1, 2, 3, 4, 1, 2, 3, 4, 0]], 0.1).item() > 5


def test_info_nce_by_its_definition() -> None:
    c = codes(5, 8)
    c[:, 0] += 0.1
    u, v = (s / s.norm(dim=1, keepdim=True) for s in (c[:5], c[5:]))
    logits = (u @ v.T / 0.2).exp()
    both = -(logits.diag() / logits.sum(1)).log().mean() - (logits.diag() / logits.sum(0)).log().mean()
    assert info_nce(c, 0.2).item() == pytest.approx(float(both) / 2, abs=1e-12)


def test_nearness_is_two_less_the_distance_of_directions() -> None:
    x, W = torch.randn(5, 7, dtype=torch.float64), torch.randn(7, 9, dtype=torch.float64)
    for i in range(5):
        for j in range(9):
            distance = (x[i] / x[i].norm() - W[:, j] / W[:, j].norm()).norm()
            assert nearness(x, W)[i, j].item() == pytest.approx(2 - distance.item(), abs=1e-6)
    assert nearness(W.T, W).diagonal().min() > 1.99
    assert torch.isfinite(torch.autograd.grad(nearness(W.T, W.requires_grad_()).sum(), W)[0]).all()


@pytest.mark.parametrize(("mode", "hidden"), [("drop", 0.2), ("keep", 0.8)])
def test_the_mask_is_the_same_for_both_sides_and_only_there_in_training(mode: str, hidden: float) -> None:
    config = dictionary_config("masked_group_sparse", D_IN, 4 * D_SAE, k=4, mask_mode=mode)
    sae = get_sae_training_class("masked_group_sparse")[0](config)
    drawn = sae.hidden(torch.zeros(400, 4 * D_SAE))
    assert torch.equal(drawn[:200], drawn[200:])
    assert drawn.float().mean().item() == pytest.approx(hidden, abs=0.02)
    x = torch.randn(8, D_IN)
    with torch.no_grad():
        assert torch.equal(sae.encode(x), sae.encode(x))
    assert not torch.equal(sae.encode(x), sae.encode(x))


@pytest.mark.parametrize("architecture", ["group_sparse", "iso_energy"])
def test_with_coefficient_zero_it_is_stock_topk(architecture: str) -> None:
    name = {"group_sparse": "group_coefficient", "iso_energy": "align_coefficient"}[architecture]
    torch.manual_seed(0)
    ours = get_sae_training_class(architecture)[0](dictionary_config(architecture, D_IN, D_SAE, k=4, **{name: 0.0}))
    stock = get_sae_training_class("topk")[0](dictionary_config("topk", D_IN, D_SAE, k=4))
    stock.load_state_dict(ours.state_dict())
    given = TrainStepInput(torch.randn(8, D_IN), {}, None, 0, False)
    assert ours.training_forward_pass(given).loss.item() == stock.training_forward_pass(given).loss.item()


@pytest.mark.parametrize("options", [{}, {"heads": "separate"}])
def test_the_decoder_of_ncl_gives_its_heads_no_gradient(options: dict) -> None:
    sae = get_sae_training_class("ncl")[0](dictionary_config("ncl", D_IN, D_SAE, **options))
    out = sae.training_forward_pass(TrainStepInput(torch.randn(8, D_IN), {}, None, 0, False))
    (gradient,) = torch.autograd.grad(out.losses["mse_loss"], sae.W_enc, allow_unused=True, retain_graph=True)
    assert gradient is None
    assert torch.autograd.grad(out.losses["contrastive_loss"], sae.W_dec, allow_unused=True) == (None,)


@pytest.mark.parametrize(
    ("architecture", "options"), [*((a, {}) for a in ARCHITECTURES), ("ncl", {"heads": "separate"})]
)
def test_trained_by_the_stock_trainer_saved_and_reloaded(architecture: str, options: dict, tmp_path: Path) -> None:
    acts = paired(ROWS, D_IN)
    config = dictionary_config(architecture, D_IN, D_SAE, k=4, **options)
    dictionary = train(config, Pairs(acts, 64), samples=64 * 150, lr=5e-3)
    batch = dictionary.batch(acts)
    for modality in ("image", "text"):
        error = (batch.acts.of(modality) - batch.reconstruction.of(modality)).square().sum()
        assert error < 0.9 * batch.acts.of(modality).square().sum()
    loaded = Dictionary.load(dictionary.save(tmp_path / "sae"))
    for modality in ("image", "text"):
        side = SAE.load_from_disk(tmp_path / "sae" / modality)
        assert torch.equal(side.encode(acts.of(modality)), batch.codes.of(modality).dense())
        assert torch.equal(loaded.encode(acts).of(modality).dense(), batch.codes.of(modality).dense())
        raw = batch.reconstruction.of(modality) + dictionary.means[modality]
        torch.testing.assert_close(side(acts.of(modality)), raw, atol=1e-5, rtol=0)
        assert side.cfg.architecture() == STOCK_FORM.get(architecture, "distance_topk")
    assert loaded.sae.cfg.metadata.training_architecture == architecture


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_single_rows_are_refused(architecture: str) -> None:
    assert needs_pairs(architecture)
    with pytest.raises(InputError, match=f"whole pairs in each batch, which '{architecture}' needs.*paired=True"):
        train(dictionary_config(architecture, D_IN, D_SAE, k=4), Provider(paired(ROWS, D_IN), 64), samples=640)


def test_ordinary_architectures_need_no_pairs() -> None:
    assert not needs_pairs("topk")
    assert not needs_pairs("no such thing")


def test_an_odd_batch_holds_no_whole_pairs() -> None:
    with pytest.raises(InputError, match=r"a paired batch.*found 5 rows"):
        group_penalty(torch.zeros(5, 3))


def step(sae: TrainingSAE, x: Tensor) -> TrainStepOutput:
    return sae.training_forward_pass(TrainStepInput(x, {}, None, 0, False))


@pytest.mark.parametrize("coefficient", [2e-4, 0.5])
def test_iso_energy_subtracts_the_alignment_times_its_coefficient_and_width(coefficient: float) -> None:
    sae = get_sae_training_class("iso_energy")[0](
        dictionary_config("iso_energy", D_IN, D_SAE, k=8, align_coefficient=coefficient)
    )
    half = torch.randn(8, D_IN, generator=torch.Generator().manual_seed(0)).abs()
    out = step(sae, torch.cat([half, half + 0.1]))
    agreement = float(alignment(out.feature_acts).detach())
    assert agreement > 0.1
    assert out.losses["alignment_loss"].item() == pytest.approx(-coefficient * D_IN * agreement, rel=1e-6)
    assert out.loss.item() == pytest.approx(sum(float(v.detach()) for v in out.losses.values()), rel=1e-6)


def test_each_head_of_ncl_reads_its_own_modality_in_training_and_when_saved() -> None:
    sae = get_sae_training_class("ncl")[0](dictionary_config("ncl", D_IN, D_SAE, heads="separate"))
    with torch.no_grad():
        sae.W_enc_text.copy_(torch.randn(D_IN, D_SAE, generator=torch.Generator().manual_seed(1)))
        sae.b_enc_text.fill_(0.3)
    x = torch.randn(8, D_IN, generator=torch.Generator().manual_seed(2))
    found = step(sae, x).feature_acts
    torch.testing.assert_close(found[:4], (x[:4] @ sae.W_enc + sae.b_enc).relu())
    torch.testing.assert_close(found[4:], (x[4:] @ sae.W_enc_text + sae.b_enc_text).relu())
    saved = inference(sae)
    for modality, rows in (("image", slice(4)), ("text", slice(4, None))):
        torch.testing.assert_close(saved.for_modality(modality).encode(x[rows]), found[rows])


@torch.no_grad()
def test_the_losses_of_ncl_are_those_of_its_formula() -> None:
    sae = get_sae_training_class("ncl")[0](dictionary_config("ncl", D_IN, D_SAE, temperature=0.3))
    x = torch.randn(6, D_IN, generator=torch.Generator().manual_seed(3))
    out = step(sae, x)
    found = (x @ sae.W_enc + sae.b_enc).relu()
    error = sum(float(((row @ sae.W_dec + sae.b_dec - given) ** 2).sum()) for row, given in zip(found, x, strict=True))
    assert float(out.losses["mse_loss"]) == pytest.approx(error / 6, rel=1e-5)
    assert float(out.losses["contrastive_loss"]) == pytest.approx(float(info_nce(found, 0.3)), rel=1e-5)
    assert float(out.loss) == pytest.approx(error / 6 + float(info_nce(found, 0.3)), rel=1e-5)
    torch.testing.assert_close(out.hidden_pre.relu(), out.feature_acts)


@torch.no_grad()
def test_two_decoders_in_training_are_those_of_their_formula() -> None:
    sae = get_sae_training_class("two_decoders")[0](dictionary_config("two_decoders", D_IN, D_SAE, k=3))
    g = torch.Generator().manual_seed(5)
    for parameter in (sae.b_dec, sae.W_dec_text, sae.b_dec_text):
        parameter.copy_(torch.randn(parameter.shape, generator=g))
    x = torch.randn(6, D_IN, generator=g)
    out = step(sae, x)
    for number, (row, read, coded) in enumerate(zip(out.sae_out, x, out.feature_acts, strict=True)):
        distance = (read / read.norm() - (sae.W_enc / sae.W_enc.norm(dim=0)).T).norm(dim=1)
        expected = torch.where(distance <= distance.sort().values[2], 2 - distance, 0.0)
        torch.testing.assert_close(coded, expected, atol=1e-5, rtol=1e-5)
        decoder = (sae.W_dec, sae.b_dec) if number < 3 else (sae.W_dec_text, sae.b_dec_text)
        torch.testing.assert_close(row, expected @ decoder[0] + decoder[1], atol=1e-5, rtol=1e-5)
    assert float(out.loss) == pytest.approx(float(((out.sae_out - x) ** 2).sum(1).mean()), rel=1e-5)
    assert sae.get_coefficients() == {}


@pytest.mark.parametrize("architecture", ["ncl", "two_decoders"])
def test_every_weight_has_the_dtype_of_the_config(architecture: str) -> None:
    sae = get_sae_training_class(architecture)[0](dictionary_config(architecture, D_IN, D_SAE, dtype="float64"))
    assert {parameter.dtype for parameter in sae.parameters()} == {torch.float64}
    assert {parameter.dtype for parameter in inference(sae).parameters()} == {torch.float64}
