"""Modality scores while SAELens trains: an evaluator of `sae_lens.SAETrainer`, for Weights & Biases or TensorBoard."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from cliplens.errors import InputError
from cliplens.hooked import HookedCLIP
from cliplens.pairs import Pairs
from cliplens.records import Batch, PairedActs, PairedCodes, SparseCodes
from cliplens.sites import MODALITIES, Modality
from cliplens.store import Provider
from cliplens.stream import stream
from cliplens_plugins.modality.metric import ModalityMetric

Figures = dict[str, float]
Log = Callable[[Mapping[str, float], int], None]
_ROWS = 1024


class ModalityEvaluator:
    """Score the dictionary on held-out pairs each time `SAETrainer` evaluates.

        evaluator = ModalityEvaluator.of(clip, pairs[:2000], provider)
        trainer = SAETrainer(cfg, sae, provider, evaluator=evaluator)      # with cfg.logger.log_to_wandb
        evaluator.watch(trainer, stop=lambda now: now["modality/CrossD"] < 0.1)
        trainer.fit()

    The keys of the figures, all of them over the given pairs:

    - `modality/ImgD`, `modality/TextD`, `modality/CrossD`: share of the living latents by the fixed cuts of MDS;
      `..._significant`: by those whose interval excludes the cut and whose permutation test rejects. Their difference
      tells how much of a share is noise of few pairs.
    - `modality/alive`: share of latents that fire at all.
    - `modality/both`: share of the living latents that fire on images and on captions.
    - `metrics/explained_variance_image`, `..._text`: 1 - squared error / variance, per modality.
    - `metrics/l0_image`, `..._text`: firing latents per row.

    The images and captions of a pair are encoded in one batch, as in training: batch-top-k then shares its latents out
    between them, and L0 shows how.

    SAELens calls its evaluator only where it logs to Weights & Biases; `wandb.init(mode="disabled")` is enough.

    Args:
        acts: activations of both modalities, centred as the rows that the trainer gets.
        log: called with the figures and the training step, besides the log of SAELens; see `to_tensorboard`.

    Raises:
        InputError: images or captions are missing.
    """

    def __init__(self, acts: PairedActs, *, log: Log | None = None) -> None:
        if acts.image is None or acts.text is None or not len(acts):
            raise InputError(
                expected="activations of images and of captions",
                found="none" if not len(acts) else "one of the two",
                fix="pass pairs with both, and sites of both towers",
            )
        self.acts, self.history = acts, []
        self._log, self._trainer, self._stop = log, None, None

    history: list[Figures]
    """The figures of every evaluation, oldest first."""
    _trainer: Any
    _stop: Callable[[Mapping[str, float]], bool] | None

    @classmethod
    def of(cls, clip: HookedCLIP, pairs: Pairs, provider: Provider, *, log: Log | None = None) -> "ModalityEvaluator":
        """Return an evaluator on pairs, read at the sites of a provider and centred by its means.

        Raises:
            InputError: the provider does not know its sites, or lacks one modality.
        """
        source = provider.provenance
        if source is None:
            raise InputError(
                expected="a provider that knows its sites",
                found="one without provenance",
                fix="make it with cliplens.activations or Provider.from_cache",
            )
        parts = list(stream(clip, pairs, list(source.sites), token=source.token))
        sides: list[Tensor | None] = []
        for modality in MODALITIES:
            rows = [found for part in parts if (found := part.of(modality)) is not None]
            shift = (provider.means or {}).get(modality)
            whole = torch.cat(rows).cpu() if rows else None
            sides.append(whole if whole is None or shift is None else whole - shift.cpu())
        return cls(PairedActs(tuple(i for part in parts for i in part.ids), *sides), log=log)

    def watch(self, trainer: Any, *, stop: Callable[[Mapping[str, float]], bool] | None = None) -> None:
        """Take the step of the log from a trainer, and end its training as if it were complete once `stop` is true."""
        self._trainer, self._stop = trainer, stop

    @torch.no_grad()
    def __call__(self, sae: Any, data_provider: Any, activation_scaler: Any) -> dict[str, Any]:
        """Return the figures, as SAELens calls it. `data_provider` is not read, so training is not changed."""
        figures = self._figures(sae, activation_scaler)
        self.history.append(figures)
        step = len(self.history) - 1 if self._trainer is None else int(self._trainer.n_training_steps)
        if self._log is not None:
            self._log(figures, step)
        if self._stop is not None and self._stop(figures):
            self._trainer.cfg.total_training_samples = self._trainer.n_training_samples
        return dict(figures)

    def _figures(self, sae: Any, scaler: Any) -> Figures:
        metric = ModalityMetric()
        sums = {modality: _Fidelity() for modality in MODALITIES}
        for start in range(0, len(self.acts), _ROWS):
            ids = self.acts.ids[start : start + _ROWS]
            sides: dict[Modality, SparseCodes] = {}
            rows = torch.cat([self._rows(modality)[start : start + _ROWS] for modality in MODALITIES])
            rows = rows.to(sae.W_dec.device, sae.W_dec.dtype)
            scaled = rows if scaler is None else scaler.scale(rows)
            encoded = sae.encode(scaled)
            codes = encoded.to_dense() if encoded.is_sparse else encoded
            halves = zip(*(half.chunk(2) for half in (scaled, sae.decode(codes), codes)), strict=True)
            for modality, half in zip(MODALITIES, halves, strict=True):
                sums[modality].add(*half)
                sides[modality] = SparseCodes.from_dense(half[2])
            coded = PairedCodes(ids, sides["image"], sides["text"])
            metric.update(Batch(PairedActs(ids, None, None), coded, PairedActs(ids, None, None)))
        found = metric.findings(None)
        alive = max(int(found.figures["alive"]), 1)
        both = (found.columns["fire_image"] > 0) & (found.columns["fire_text"] > 0)
        figures = {"modality/alive": found.figures["alive"] / len(both), "modality/both": float(both.sum()) / alive}
        for name in ("ImgD", "TextD", "CrossD"):
            figures[f"modality/{name}"] = found.figures[name] / alive
            figures[f"modality/{name}_significant"] = found.figures[f"{name}_significant"] / alive
        for modality, of_modality in sums.items():
            figures |= {f"metrics/{name}_{modality}": value for name, value in of_modality.figures().items()}
        return figures

    def _rows(self, modality: Modality) -> Tensor:
        rows = self.acts.of(modality)
        assert rows is not None
        return rows


class _Fidelity:
    """Sums of squared errors and of variance, merged over batches in float64."""

    def __init__(self) -> None:
        self._n = self._firings = 0
        self._error = self._squares = 0.0
        self._sum: Tensor | float = 0.0

    def add(
        self, rows: Float[Tensor, "row d_in"], rebuilt: Float[Tensor, "row d_in"], codes: Float[Tensor, "row d_sae"]
    ) -> None:
        """Add a batch."""
        wide = rows.double()
        self._n += len(rows)
        self._firings += int((codes != 0).sum())
        self._error += float((wide - rebuilt.double()).pow(2).sum())
        self._squares += float(wide.pow(2).sum())
        self._sum = self._sum + wide.sum(0)

    def figures(self) -> Figures:
        """Return explained variance (nan where all rows are equal) and L0."""
        total = self._squares - float((torch.as_tensor(self._sum) ** 2).sum()) / self._n
        variance = 1 - self._error / total if total > 0 else float("nan")
        return {"explained_variance": variance, "l0": self._firings / self._n}


def to_tensorboard(writer: Any) -> Log:
    """Return a `log` that writes each figure as a scalar of a `torch.utils.tensorboard.SummaryWriter`."""

    def log(figures: Mapping[str, float], step: int) -> None:
        for name, value in figures.items():
            writer.add_scalar(name, value, step)

    return log
