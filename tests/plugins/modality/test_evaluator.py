"""The evaluator in SAELens' own trainer: figures of stock SAELens, logged by real wandb and TensorBoard, stops."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sae_lens import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig, SAETrainer
from sae_lens.config import LoggingConfig, SAETrainerConfig

import cliplens
from cliplens.errors import InputError
from cliplens.records import PairedActs
from cliplens_plugins.modality import ModalityEvaluator, classify_fixed, mds, to_tensorboard

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def clip() -> Any:
    return cliplens.load("world", device="cpu")


def trained(clip: Any, folder: Path, *, stop: Any = None, **options: Any) -> tuple[SAETrainer, ModalityEvaluator]:
    pairs = cliplens.read_pairs("world:120")
    provider = cliplens.activations(clip, pairs[:80], batch_size=32)
    evaluator = ModalityEvaluator.of(clip, pairs[80:], provider, **options)
    sae = BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(d_in=64, d_sae=32, k=4))
    logger = LoggingConfig(
        log_to_wandb=True, log_weights_to_wandb=False, wandb_log_frequency=2, eval_every_n_wandb_logs=2
    )
    cfg = SAETrainerConfig(
        total_training_samples=20 * 32,
        train_batch_size_samples=32,
        lr=1e-3,
        lr_end=1e-4,
        device="cpu",
        n_checkpoints=0,
        checkpoint_path=str(folder),
        logger=logger,
    )
    trainer = SAETrainer(cfg, sae, provider, evaluator=evaluator)
    evaluator.watch(trainer, stop=stop)
    return trainer, evaluator


def test_wandb_gets_the_figures_as_saelens_logs_them(
    clip: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb

    logged: list[tuple[dict[str, Any], int]] = []
    run = wandb.init(mode="offline", dir=str(tmp_path), project="test")
    monkeypatch.setattr(wandb, "log", lambda figures, step: logged.append((figures, step)) or run.log(figures, step))
    try:
        trainer, evaluator = trained(clip, tmp_path)
        trainer.fit()
    finally:
        run.finish()
    found = [(figures, step) for figures, step in logged if "modality/CrossD" in figures]
    assert [step for _, step in found] == [3, 7, 11, 15, 19]
    assert len(evaluator.history) == 5
    assert {"metrics/explained_variance_text", "metrics/l0_image", "modality/ImgD_significant"} <= set(found[-1][0])
    assert list(tmp_path.rglob("*.wandb"))


def test_tensorboard_gets_them_without_an_account(clip: Any, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    import wandb
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    wandb.init(mode="disabled")
    with SummaryWriter(str(tmp_path / "board")) as writer:
        trainer, evaluator = trained(clip, tmp_path, log=to_tensorboard(writer))
        trainer.fit()
    wandb.finish()
    board = EventAccumulator(str(tmp_path / "board"))
    board.Reload()
    assert [event.step for event in board.Scalars("modality/CrossD")] == [3, 7, 11, 15, 19]
    assert board.Scalars("modality/alive")[-1].value == pytest.approx(evaluator.history[-1]["modality/alive"])


def test_training_stops_when_asked_and_is_otherwise_unchanged(clip: Any, tmp_path: Path) -> None:
    import wandb

    wandb.init(mode="disabled")
    torch.manual_seed(0)
    trainer, evaluator = trained(clip, tmp_path, stop=lambda now: now["metrics/l0_image"] > 0)
    stopped = trainer.fit()
    assert trainer.n_training_steps == 4
    assert len(evaluator.history) == 1
    torch.manual_seed(0)
    plain, _ = trained(clip, tmp_path)
    plain.evaluator = None
    plain.cfg.total_training_samples = 4 * 32
    torch.testing.assert_close(plain.fit().W_dec, stopped.W_dec, rtol=0, atol=0)
    wandb.finish()


@torch.no_grad()
def test_the_figures_are_those_of_the_whole_matrices(clip: Any, tmp_path: Path) -> None:
    trainer, evaluator = trained(clip, tmp_path)
    sae = trainer.sae.double()
    acts = PairedActs(evaluator.acts.ids, evaluator.acts.image.double(), evaluator.acts.text.double())  # type: ignore[union-attr]
    trainer.activation_scaler.scaling_factor = 0.5
    figures = ModalityEvaluator(acts)(sae, None, trainer.activation_scaler)
    joint = sae.encode(torch.cat([0.5 * acts.image, 0.5 * acts.text]))  # type: ignore[operator]
    codes = dict(zip(("image", "text"), joint.chunk(2), strict=True))
    for modality, code in codes.items():
        rows = 0.5 * acts.of(modality)  # type: ignore[arg-type, operator]
        left = (rows - sae.decode(code)).pow(2).sum() / (rows - rows.mean(0)).pow(2).sum()
        assert figures[f"metrics/explained_variance_{modality}"] == pytest.approx(float(1 - left), rel=1e-9)
        assert figures[f"metrics/l0_{modality}"] == pytest.approx(float((code != 0).sum(1).double().mean()))
    alive = ((codes["image"] != 0) | (codes["text"] != 0)).any(0)
    classes = classify_fixed(mds(codes["image"], codes["text"]).numpy())
    assert figures["modality/alive"] == pytest.approx(float(alive.double().mean()))
    assert figures["modality/CrossD"] == pytest.approx(float(np.mean(classes[alive.numpy()] == "CrossD")))
    both = (codes["image"] > 0).any(0) & (codes["text"] > 0).any(0)
    assert figures["modality/both"] == pytest.approx(float(both.sum() / alive.sum()))


@torch.no_grad()
def test_batch_top_k_shares_its_latents_between_the_modalities() -> None:
    """Encoded apart, each modality would get exactly k latents per row, whatever the dictionary prefers."""
    sae = BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(d_in=16, d_sae=32, k=4))
    torch.manual_seed(0)
    loud, quiet = 3 * torch.randn(50, 16), torch.randn(50, 16)
    figures = ModalityEvaluator(PairedActs(tuple(map(str, range(50))), loud, quiet))(sae, None, None)
    image, text = figures["metrics/l0_image"], figures["metrics/l0_text"]
    assert image + text == pytest.approx(8, abs=0.1)
    assert image > text + 1


def test_one_modality_is_refused(clip: Any) -> None:
    pairs = cliplens.read_pairs("world:8")
    provider = cliplens.activations(clip, pairs, "vision.hook_embedding", modalities="image", batch_size=4)
    with pytest.raises(InputError, match="one of the two"):
        ModalityEvaluator.of(clip, pairs, provider)
    provider.provenance = None
    with pytest.raises(InputError, match="a provider that knows its sites"):
        ModalityEvaluator.of(clip, pairs, provider)


def test_activations_are_centred_by_the_means_of_the_provider_and_not_without(clip: Any) -> None:
    pairs = cliplens.read_pairs("world:12")
    raw = cliplens.activations(clip, pairs[:8], batch_size=8, centre=False)
    centred = cliplens.activations(clip, pairs[:8], batch_size=8)
    assert centred.means is not None
    plain, shifted = (ModalityEvaluator.of(clip, pairs[8:], provider).acts for provider in (raw, centred))
    for modality in ("image", "text"):
        expected = plain.of(modality) - centred.means[modality]
        torch.testing.assert_close(shifted.of(modality), expected, atol=1e-6, rtol=1e-6)


@torch.no_grad()
def test_shares_are_of_the_living_latents_even_of_one_and_of_none() -> None:
    sae = BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(d_in=4, d_sae=8, k=1))
    sae.W_enc.zero_()
    sae.b_dec.zero_()
    rows = torch.ones(6, 4)
    acts = PairedActs(tuple(map(str, range(6))), rows, rows)
    for alive in (0, 1):
        sae.b_enc.copy_(torch.arange(8) == 3 if alive else torch.zeros(8))
        figures = ModalityEvaluator(acts)(sae, None, None)
        assert figures["modality/alive"] == alive / 8
        assert figures["modality/both"] == figures["modality/CrossD"] == alive


@torch.no_grad()
def test_a_latent_of_one_modality_is_not_one_of_both() -> None:
    sae = BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(d_in=2, d_sae=2, k=1))
    sae.W_enc.copy_(torch.eye(2))
    sae.b_dec.zero_()
    sae.b_enc.zero_()
    image, text = torch.tensor([[1.0, 0.0]]).repeat(4, 1), torch.tensor([[0.0, 1.0]]).repeat(4, 1)
    figures = ModalityEvaluator(PairedActs(tuple("abcd"), image, text))(sae, None, None)
    assert (figures["modality/alive"], figures["modality/both"]) == (1.0, 0.0)
    assert (figures["modality/ImgD"], figures["modality/TextD"]) == (0.5, 0.5)
