import logging
from pathlib import Path

import pytest
import torch
from sae_lens import SAE

from cliplens.errors import InputError, MismatchError
from cliplens.sae import Dictionary, dictionary_config, resume_point, train
from cliplens.sae.architectures.faster import FAST_FROM
from support.dictionaries import STOCK
from support.streams import Pairs, Provider, paired, provenance

D_IN, D_SAE = 16, 48


def provider(**options: object) -> Provider:
    return Provider(paired(600, D_IN), **{"batch_size": 64, **options})


def trained(data: object, architecture: str = "batchtopk", steps: int = 40, **options: object) -> Dictionary:
    return train(dictionary_config(architecture, D_IN, D_SAE, k=4), data, samples=64 * steps, **options)


def weights(dictionary: Dictionary) -> torch.Tensor:
    return torch.cat([t.flatten() for t in dictionary.sae.state_dict().values()])


@pytest.mark.parametrize("architecture", STOCK)
def test_every_architecture_learns_and_reloads_in_stock_saelens(architecture: str, tmp_path: Path) -> None:
    acts = paired(600, D_IN)
    dictionary = trained(provider(), architecture, steps=120)
    batch = dictionary.batch(acts)
    error = (batch.acts.image - batch.reconstruction.image).square().sum()
    assert error < 0.6 * batch.acts.image.square().sum()
    dictionary.save(tmp_path / "sae")
    stock = SAE.load_from_disk(tmp_path / "sae" / "text")
    assert torch.equal(stock.encode(acts.text), batch.codes.text.dense())
    assert stock.cfg.metadata.training_architecture == architecture
    assert stock.cfg.metadata.l0 > 0


def test_saved_sparsity_is_the_one_asked_for() -> None:
    dictionary, acts = trained(provider(), steps=200), paired(600, D_IN)
    codes = dictionary.encode(acts)
    fired = (len(codes.image.values) + len(codes.text.values)) / 1200
    assert fired == pytest.approx(4, rel=0.03)  # k = 4; the rows measured are a sample of these


def test_the_provider_gives_means_and_provenance() -> None:
    data = provider()
    dictionary = trained(data)
    assert torch.equal(dictionary.means["image"], data.means["image"])
    assert dictionary.provenance == provenance(D_IN)


def test_any_iterator_of_tensors_is_a_provider() -> None:
    data = iter(lambda: torch.randn(32, D_IN), None)
    dictionary = train(dictionary_config("topk", D_IN, D_SAE, k=4), data, samples=640, batch_size=32)
    assert dictionary.means is None


def test_a_seed_gives_the_same_dictionary_and_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = trained(provider(), seed=1)
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(weights(first), weights(trained(provider(), seed=1)))
    assert not torch.equal(weights(first), weights(trained(provider(), seed=2)))


class KilledError(Exception):
    pass


class Mortal(Provider):
    """Dies after so many batches."""

    def __next__(self) -> torch.Tensor:
        if self.given == 31:
            raise KilledError
        return super().__next__()


@pytest.mark.parametrize("architecture", ["batchtopk", "jumprelu", "gated"])
def test_a_resumed_training_equals_the_uninterrupted_one_bit_for_bit(
    architecture: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = trained(provider(), architecture, checkpoint_folder=tmp_path / "whole")
    with pytest.raises(KilledError):
        trained(Mortal(paired(600, D_IN), 64), architecture, checkpoint_folder=tmp_path / "cut")
    assert 0 < resume_point(tmp_path / "cut") < 31 * 64
    with caplog.at_level(logging.INFO):
        resumed = trained(provider(seed=9), architecture, checkpoint_folder=tmp_path / "cut", resume=True)
    assert f"continues after {resume_text(caplog)} rows" in caplog.text
    assert torch.equal(weights(resumed), weights(whole))
    assert resumed.sae.cfg.metadata.l0 == whole.sae.cfg.metadata.l0
    assert resume_point(tmp_path / "cut") == 0  # checkpoints go when training is done


def test_checkpoints_are_used_only_when_asked_to(tmp_path: Path) -> None:
    with pytest.raises(KilledError):
        trained(Mortal(paired(600, D_IN), 64), checkpoint_folder=tmp_path)
    assert resume_point(tmp_path) > 0
    again = trained(provider(seed=9), checkpoint_folder=tmp_path)
    assert torch.equal(weights(again), weights(trained(provider(seed=9))))


def resume_text(caplog: pytest.LogCaptureFixture) -> str:
    return caplog.text.partition("continues after ")[2].partition(" ")[0]


def test_resuming_without_a_checkpoint_starts_from_the_beginning_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        resumed = trained(provider(), checkpoint_folder=tmp_path, resume=True)
    assert "starts from the beginning" in caplog.text
    assert torch.equal(weights(resumed), weights(trained(provider())))


def test_resuming_without_a_folder_for_checkpoints_is_an_ordinary_training() -> None:
    asked = {"samples": 64, "batch_size": 32, "resume": True}
    config = dictionary_config("topk", D_IN, 16, k=4)
    found = [train(config, iter([torch.ones(32, D_IN)] * 2), **{**asked, "resume": resume}) for resume in (True, False)]
    assert torch.equal(weights(found[0]), weights(found[1]))


def test_a_cut_checkpoint_is_passed_over(tmp_path: Path) -> None:
    with pytest.raises(KilledError):
        trained(Mortal(paired(600, D_IN), 64), checkpoint_folder=tmp_path)
    (newest,) = tmp_path.glob("*.safetensors")
    newest.write_bytes(newest.read_bytes()[:50])
    assert resume_point(tmp_path) == 0
    resumed = trained(provider(), checkpoint_folder=tmp_path, resume=True)
    assert torch.equal(weights(resumed), weights(trained(provider())))


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KilledError):
        trained(Mortal(paired(600, D_IN), 64), checkpoint_folder=tmp_path)
    with pytest.raises(MismatchError, match=r"with lr=0.003, but found lr=0.5. Fix: pass the same options"):
        trained(provider(), checkpoint_folder=tmp_path, resume=True, lr=0.5)


def test_checkpoints_are_tensors_not_pickles(tmp_path: Path) -> None:
    with pytest.raises(KilledError):
        trained(Mortal(paired(600, D_IN), 64), checkpoint_folder=tmp_path)
    assert [p.suffix for p in tmp_path.iterdir()] == [".safetensors"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: trained(provider(), batch_size=32), "the provider's own batch_size, 64, but found batch_size=32"),
        (
            lambda: trained(iter([torch.zeros(64, 7)]), batch_size=64),
            r"shape \(64, 16\).*found a batch of shape \(64, 7",
        ),
        (lambda: trained(iter([torch.zeros(64, 16)]), batch_size=64), "found the end of the data"),
    ],
)
def test_batches_of_another_shape_are_refused(call, message: str) -> None:
    with pytest.raises(MismatchError, match=message):
        call()


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(InputError, match=r"at least one batch of 64 samples, but found samples=10"):
        train(dictionary_config("topk", D_IN, D_SAE, k=4), provider(), samples=10)


def test_centred_data_and_layer_norm_do_not_go_together() -> None:
    config = dictionary_config("standard", D_IN, D_SAE, normalize_activations="layer_norm")
    with pytest.raises(InputError, match="normalize_activations='layer_norm'"):
        train(config, provider(), samples=640)
    assert train(config, provider(centre=False), samples=640).means is None


def test_a_checkpoint_that_cannot_be_written_is_logged_and_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cliplens.sae.checkpoint.save_file", full)
    dictionary = trained(provider(), checkpoint_folder=tmp_path)
    assert caplog.text.count("checkpoint after") == 4
    assert "No space left on device" in caplog.text
    assert list(tmp_path.iterdir()) == []
    assert torch.equal(weights(dictionary), weights(trained(provider())))


def test_a_checkpoint_folder_that_cannot_be_made_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    trained(provider(), checkpoint_folder=tmp_path / "file" / "checkpoints")
    assert "no checkpoints, the folder" in caplog.text


def test_the_dictionary_is_saved_before_its_checkpoints_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(Dictionary, "save", killed)
        with pytest.raises(KilledError):
            trained(provider(), checkpoint_folder=tmp_path / "c", save_to=tmp_path / "sae")
    assert resume_point(tmp_path / "c") > 0
    whole = trained(provider(), checkpoint_folder=tmp_path / "c", resume=True, save_to=tmp_path / "sae")
    assert resume_point(tmp_path / "c") == 0
    assert torch.equal(weights(Dictionary.load(tmp_path / "sae")), weights(whole))
    assert torch.equal(weights(whole), weights(trained(provider())))


@pytest.mark.parametrize("at", [0.3, 0.6, 0.95])
def test_a_flipped_bit_in_a_checkpoint_is_noticed(at: float, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(KilledError):
        trained(Mortal(paired(600, D_IN), 64), checkpoint_folder=tmp_path)
    (newest,) = tmp_path.glob("*.safetensors")
    content = bytearray(newest.read_bytes())
    start = 8 + int.from_bytes(content[:8], "little")
    content[start + int((len(content) - start) * at)] ^= 0x04
    newest.write_bytes(content)
    resumed = trained(provider(), checkpoint_folder=tmp_path, resume=True)
    assert "is damaged and skipped" in caplog.text
    assert torch.equal(weights(resumed), weights(trained(provider())))


@pytest.mark.parametrize("architecture", ["topk", "batchtopk", "matryoshka_batchtopk", "iso_energy"])
def test_wide_dictionaries_train_with_the_sparse_step_to_the_stock_weights(architecture: str, tmp_path: Path) -> None:
    config = dictionary_config(architecture, D_IN, FAST_FROM, k=4, dtype="float64")
    source = Pairs if architecture == "iso_energy" else Provider
    made = {fast: train(config, source(paired(600, D_IN), 64), samples=64 * 15, fast=fast) for fast in (None, False)}
    for name, expected in made[False].sae.state_dict().items():
        torch.testing.assert_close(made[None].sae.state_dict()[name], expected, atol=1e-8, rtol=1e-8)
    made[None].save(tmp_path)
    assert SAE.load_from_disk(tmp_path / "image").cfg.metadata.training_architecture == f"fast_{architecture}"


def test_narrow_dictionaries_keep_the_stock_step_unless_asked() -> None:
    stock, default = trained(provider(), fast=False), trained(provider())
    assert torch.equal(weights(stock), weights(default))
    assert not torch.equal(weights(stock), weights(trained(provider(), fast=True)))


def test_a_training_begun_with_the_stock_step_resumes_with_the_sparse_one(tmp_path: Path) -> None:
    with pytest.raises(KilledError):
        trained(Mortal(paired(600, D_IN), 64), checkpoint_folder=tmp_path, fast=False)
    resumed = trained(provider(), checkpoint_folder=tmp_path, resume=True, fast=True)
    whole = trained(provider())
    torch.testing.assert_close(weights(resumed), weights(whole), atol=1e-3, rtol=1e-2)


@pytest.mark.parametrize("architecture", [*STOCK, "fast_topk", "fast_batchtopk", "ncl", "two_decoders", "group_sparse"])
def test_a_frozen_decoder_stays_as_it_was_drawn_while_the_rest_learns(architecture: str) -> None:
    data = [provider(), provider()]
    for rows in data:
        rows.paired = True
    first, later = (
        trained(rows, architecture, steps=steps, frozen_decoder=True, seed=3)
        for rows, steps in zip(data, (1, 20), strict=True)
    )
    before, after = (d.sae.state_dict() for d in (first, later))
    decoders = [name for name in before if name.startswith("W_dec")]
    assert decoders
    assert all(torch.equal(before[name], after[name]) for name in decoders)
    assert not torch.equal(before["b_dec"], after["b_dec"])
    moved = trained(provider(), "topk", steps=20, seed=3).sae.W_dec
    assert not torch.equal(moved, before["W_dec"])
