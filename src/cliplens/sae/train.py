"""Train a dictionary with SAELens' `SAETrainer` on any iterator of [batch, d_in] tensors."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from sae_lens.config import LoggingConfig, SAETrainerConfig
from sae_lens.registry import get_sae_training_class
from sae_lens.saes.sae import TrainingSAEConfig
from sae_lens.training.sae_trainer import SAETrainer
from torch import Tensor

from cliplens.errors import InputError, MismatchError
from cliplens.records import Provenance
from cliplens.sae.architectures.faster import FAST_FROM, faster
from cliplens.sae.architectures.paired import needs_pairs
from cliplens.sae.checkpoint import remove_checkpoints
from cliplens.sae.configs import threshold_rate, with_metadata
from cliplens.sae.dictionary import Dictionary
from cliplens.sae.folding import check_affine_normalisation
from cliplens.sae.provenance import write_provenance
from cliplens.sae.threshold import ROWS, calibrate
from cliplens.sae.trainer_state import TrainerCheckpoints
from cliplens.store.memory import reused_memory


def train(
    config: TrainingSAEConfig,
    provider: Iterator[Float[Tensor, "batch d_in"]],
    *,
    samples: int = 400_000,
    batch_size: int | None = None,
    lr: float = 3e-3,
    seed: int = 0,
    device: torch.device | str = "cpu",
    checkpoint_folder: Path | None = None,
    n_checkpoints: int = 4,
    keep_checkpoints: bool = False,
    resume: bool = False,
    save_to: Path | None = None,
    wandb_project: str | None = None,
    fast: bool | None = None,
    frozen_decoder: bool = False,
    **trainer_options: Any,
) -> Dictionary:
    """Train a dictionary and return it.

    After training, the threshold of a BatchTopK dictionary is measured on training rows, so that `k` latents fire per
    row on average (`cliplens.sae.threshold`). A trainer of SAELens alone keeps a running mean.

    Optional attributes of the provider: `.means` and `.provenance` are stored in the dictionary; `.batch_size`
    replaces a `batch_size` of None; `.state_dict()` and `.load_state_dict()` allow checkpoints that resume bit for bit.

    Args:
        config: the training config, see `dictionary_config`.
        provider: iterator over endless batches of centred rows.
        samples: number of rows to train on; rounded down to whole batches.
        batch_size: rows per batch.
        lr: Adam's learning rate; it falls to 0 over the last fifth of the steps.
        seed: seed of the initial weights and of training; torch's global generators are not changed.
        device: device to train on.
        checkpoint_folder: folder for checkpoints; None makes none. A checkpoint that cannot be written is logged as a
            warning, and training goes on. They are removed when training is done.
        n_checkpoints: number of checkpoints, evenly spread.
        keep_checkpoints: keep the last checkpoint after training, for a caller that removes it later.
        resume: continue from the newest checkpoint in the folder. Without one, or with a provider without `state_dict`,
            training starts from the beginning, with a note in the log.
        save_to: save the dictionary into this folder before the checkpoints are removed, so that nothing is lost if the
            process is killed.
        wandb_project: log to Weights & Biases under this project; None sends nothing.
        fast: train `topk`, `batchtopk`, `matryoshka_batchtopk`, `group_sparse`, `masked_group_sparse` and `iso_energy`
            with a step that computes firing latents only.
            The losses equal those of the stock class up to rounding, and the dictionary is saved as stock. None uses
            this step from 1,024 latents on; False never uses it.
        frozen_decoder: keep the decoder rows at their random initial values and train the rest, as a control
            (arXiv 2602.14111).
        trainer_options: fields of SAELens' `SAETrainerConfig`; they override the choices made here.

    Raises:
        InputError: the data are centred and means cannot be folded into the config; or there are fewer samples than a
            batch.
        MismatchError: the batches do not match the config or the checkpoint.
    """
    means, provenance = getattr(provider, "means", None), getattr(provider, "provenance", None)
    batch_size = _batch_size(provider, batch_size)
    steps = samples // batch_size
    _check(config, steps, batch_size, samples, centred=means is not None)
    _check_pairs(config, provider)
    config = _prepared(config, steps, str(device), provenance)
    asked = {"config": config.to_dict(), "samples": samples, "batch_size": batch_size, "lr": lr, "seed": seed}
    if fast or (fast is None and config.d_sae >= FAST_FROM and not trainer_options.get("autocast")):
        config = faster(config)
    with own_randomness(seed, device), reused_memory(), _logged(wandb_project, asked) as logger:
        sae = get_sae_training_class(config.architecture())[0](config)
        if frozen_decoder:
            _freeze_decoder(sae)
        settings = _settings(steps, batch_size, lr, str(device), logger, **trainer_options)
        batches = _Checked(provider, batch_size, config.d_in)
        trainer = SAETrainer(settings, sae, batches)
        if config.architecture().startswith("fast_"):
            use_fused_adam(trainer)
        checkpoints = TrainerCheckpoints.of(trainer, provider, asked, checkpoint_folder, n_checkpoints)
        if resume and checkpoints is not None:
            checkpoints.resume()
        trainer.fit()
        calibrate(sae, batches.further(min(steps, -(-ROWS // batch_size))))
    dictionary = Dictionary(sae, means, provenance)
    if save_to is not None:
        dictionary.save(save_to)
    if checkpoints is not None and not keep_checkpoints:
        remove_checkpoints(checkpoints.folder)
    return dictionary


def _freeze_decoder(sae: Any) -> None:
    for name, parameter in sae.named_parameters():
        if name.startswith("W_dec"):
            parameter.requires_grad_(False)


@contextmanager
def own_randomness(seed: int, device: torch.device | str) -> Iterator[None]:
    """Seed torch's global generators for the `with` block, then restore them."""
    devices = [torch.device(device)] if torch.device(device).type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


class _Checked:
    """Iterates over the batches of a provider and checks their shape."""

    def __init__(self, provider: Iterator[Tensor], batch_size: int, d_in: int) -> None:
        self.provider, self.shape = provider, (batch_size, d_in)
        self._last: Tensor | None = None

    def __iter__(self) -> "_Checked":
        return self

    def __next__(self) -> Tensor:
        batch = next(self.provider, None)
        if batch is None or tuple(batch.shape) != self.shape:
            raise MismatchError(
                expected=f"batches of shape {self.shape} (batch_size, d_in) until the end of training",
                found="the end of the data" if batch is None else f"a batch of shape {tuple(batch.shape)}",
                fix="let the provider repeat its data in whole batches, or pass fewer samples",
            )
        self._last = batch
        return batch

    def further(self, count: int) -> list[Tensor]:
        """Return up to `count` more batches; the last one again if the data have ended."""
        more = [batch.clone() for batch in islice(self.provider, count)]  # a provider may use its memory again
        return more or ([] if self._last is None else [self._last])


def _prepared(config: TrainingSAEConfig, steps: int, device: str, provenance: Provenance | None) -> TrainingSAEConfig:
    """Return a copy of the config for this run, with its device and metadata."""
    prepared = with_metadata(config, device=device, **threshold_rate(config, steps))
    if provenance is not None:
        write_provenance(prepared.metadata, provenance)
        if str(prepared.metadata.hook_name).endswith("hook_z"):
            prepared.reshape_activations = "hook_z"
    return prepared


def use_fused_adam(trainer: "SAETrainer[Any, Any]") -> None:
    """Let the Adam of a trainer update all weights in one pass over memory; steps are equal up to rounding.

    Call it before the first step.
    """
    for group in trainer.optimizer.param_groups:
        group.update(fused=True, foreach=False)


def _settings(
    steps: int, batch_size: int, lr: float, device: str, logger: LoggingConfig, **options: Any
) -> SAETrainerConfig:
    choices = {
        "lr": lr,
        "lr_end": lr,
        "lr_decay_steps": steps // 5,
        "dead_feature_window": min(1000, max(20, steps // 8)),
        "feature_sampling_window": min(2000, max(1, steps)),
        "n_batches_for_norm_estimate": min(1000, max(10, steps // 20)),
        "device": device,
        "logger": logger,
        **options,
    }
    return SAETrainerConfig(total_training_samples=steps * batch_size, train_batch_size_samples=batch_size, **choices)


def _check(config: TrainingSAEConfig, steps: int, batch_size: int, samples: int, *, centred: bool) -> None:
    if centred:
        check_affine_normalisation(config)
    if steps < 1:
        raise InputError(
            expected=f"at least one batch of {batch_size} samples",
            found=f"samples={samples}",
            fix="train on more samples, or in smaller batches",
        )


def _check_pairs(config: TrainingSAEConfig, provider: Any) -> None:
    if needs_pairs(config.architecture()) and not getattr(provider, "paired", False):
        raise InputError(
            expected=f"whole pairs in each batch, which {config.architecture()!r} needs",
            found="a provider of single rows",
            fix="make the provider with paired=True",
        )


def _batch_size(provider: Any, asked: int | None) -> int:
    own: int | None = getattr(provider, "batch_size", None)
    if own is None:
        return 1024 if asked is None else asked
    if asked not in (None, own):
        raise MismatchError(
            expected=f"the provider's own batch_size, {own}",
            found=f"batch_size={asked}",
            fix="leave batch_size out, or make the provider with the size you want",
        )
    return own


@contextmanager
def _logged(project: str | None, asked: Mapping[str, Any]) -> Iterator[LoggingConfig]:
    if project is None:
        yield LoggingConfig(log_to_wandb=False)
        return
    import wandb

    run = wandb.init(project=project, config=dict(asked))
    with run if run is not None else nullcontext():
        yield LoggingConfig(log_to_wandb=True, wandb_project=project, log_weights_to_wandb=False)
