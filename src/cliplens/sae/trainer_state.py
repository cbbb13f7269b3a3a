"""Save and restore the state of a SAELens trainer and of its provider, so that training resumes bit for bit."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from cliplens.sae.checkpoint import load_state, resume_point, save_state

log = logging.getLogger(__name__)
_COUNTERS = (
    "n_training_samples",
    "act_freq_scores",
    "n_forward_passes_since_fired",
    "n_frac_active_samples",
    "started_fine_tuning",
)


class TrainerCheckpoints:
    """Writes a checkpoint whenever the trainer would write one of SAELens', and restores the newest."""

    def __init__(self, trainer: Any, provider: Any, asked: Mapping[str, Any], folder: Path) -> None:
        self.trainer, self.provider, self.asked, self.folder = trainer, provider, asked, folder

    @classmethod
    def of(
        cls, trainer: Any, provider: Any, asked: Mapping[str, Any], folder: Path | None, count: int
    ) -> "TrainerCheckpoints | None":
        """Set up `count` checkpoints, evenly spread; return None, with a warning in the log, if there can be none."""
        if folder is None:
            return None
        if not hasattr(provider, "state_dict"):
            log.warning("the provider has no state_dict: no checkpoints, a resumed training starts from the beginning")
            return None
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            log.warning("no checkpoints, the folder %s cannot be made: %s", folder, error)
            return None
        checkpoints = cls(trainer, provider, asked, folder)
        rows = trainer.cfg.total_training_samples
        trainer.checkpoint_thresholds = [rows * n // (count + 1) for n in range(1, count + 1)]
        trainer.save_checkpoint_fn = checkpoints
        return checkpoints

    def __call__(self, checkpoint_path: Path | None) -> None:
        trainer = self.trainer
        state = {
            "sae": trainer.sae.state_dict(),
            "optimizer": trainer.optimizer.state_dict(),
            "lr_scheduler": trainer.lr_scheduler.state_dict(),
            "coefficients": {n: s.state_dict() for n, s in trainer.coefficient_schedulers.items()},
            "scaler": _scaler_state(trainer.activation_scaler),
            # SAELens counts the step after its checkpoint; at this point it is done.
            "counters": {
                **{n: getattr(trainer, n) for n in _COUNTERS},
                "n_training_steps": trainer.n_training_steps + 1,
            },
            "generators": _generators(trainer.cfg.device),
            "provider": self.provider.state_dict(),
        }
        try:
            save_state(self.folder, trainer.n_training_samples, state, self.asked)
        except (OSError, SafetensorError) as error:
            log.warning(
                "the checkpoint after %d rows could not be written to %s (%s): training goes on; if it is stopped, it"
                " resumes from row %d",
                trainer.n_training_samples,
                self.folder,
                error,
                resume_point(self.folder),
            )

    def resume(self) -> None:
        """Restore trainer, provider and random generators from the newest checkpoint, if there is one."""
        state = load_state(self.folder, self.asked)
        if state is None:
            log.info("no checkpoint in %s: training starts from the beginning", self.folder)
            return
        trainer = self.trainer
        trainer.sae.load_state_dict(state["sae"])
        trainer.optimizer.load_state_dict(state["optimizer"])
        trainer.lr_scheduler.load_state_dict(state["lr_scheduler"])
        for name, scheduler in state["coefficients"].items():
            trainer.coefficient_schedulers[name].load_state_dict(scheduler)
        _restore_scaler(trainer.activation_scaler, state["scaler"])
        for name, value in state["counters"].items():
            setattr(trainer, name, value.to(trainer.cfg.device) if isinstance(value, Tensor) else value)
        done = trainer.n_training_samples
        trainer.checkpoint_thresholds = [t for t in trainer.checkpoint_thresholds if t >= done]
        _restore_generators(state["generators"], trainer.cfg.device)
        self.provider.load_state_dict(state["provider"])
        log.info("training continues after %d rows, from the checkpoint in %s", done, self.folder)


def _scaler_state(scaler: Any) -> dict[str, Any]:
    return {
        "scaling_factor": scaler.scaling_factor,
        "whitening": None if scaler.whitening is None else dict(vars(scaler.whitening)),
    }


def _restore_scaler(scaler: Any, state: Mapping[str, Any]) -> None:
    from sae_lens.training.activation_scaler import ActivationWhitening

    scaler.scaling_factor = state["scaling_factor"]
    scaler.whitening = None if state["whitening"] is None else ActivationWhitening(**state["whitening"])


def _generators(device: str) -> dict[str, Tensor | None]:
    cuda = torch.cuda.get_rng_state(torch.device(device)) if torch.device(device).type == "cuda" else None
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def _restore_generators(state: Mapping[str, Tensor | None], device: str) -> None:
    assert state["cpu"] is not None
    torch.set_rng_state(state["cpu"])
    if state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"], torch.device(device))
