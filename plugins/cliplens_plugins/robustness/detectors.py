"""Tell attacked pictures from clean ones: by latents, beside a linear probe and the reconstruction error.

A published detector of the kind is SAEgis (2605.07447): a log score per latent, attacked mean minus clean mean, and the
sum over the first k latents against a threshold. Its exact score was not readable, so the score here is ours.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from cliplens.statistics import auroc
from cliplens.studies import linear_probe
from cliplens_plugins.robustness.eye import Reader, View

KS = (1, 2, 4, 8, 16, 32, 64)
RATES = (0.05, 0.01)
"""False positive rates that thresholds are chosen for."""
_DRAWS = 300
Interval = tuple[float, float, float]


@dataclass(frozen=True)
class Trace:
    """Features of pictures that detectors read."""

    codes: Float[Tensor, "sample d_sae"]
    """The largest code over positions."""
    acts: Float[Tensor, "sample d_in"]
    """The mean activation over positions."""
    error: Float[Tensor, " sample"]
    """|x - reconstruction|^2, summed over positions."""

    def rows(self, chosen: slice) -> "Trace":
        """Return the trace of some pictures."""
        return Trace(self.codes[chosen], self.acts[chosen], self.error[chosen])


Score = Callable[[Trace], Float[np.ndarray, " sample"]]
"""The score of a detector, higher for attacked pictures."""


@torch.no_grad()
def trace(view: View, reader: Reader) -> Trace:
    """Return what detectors read in a view."""
    assert view.acts is not None
    rows = view.acts.flatten(0, 1)
    codes = reader.codes(rows)
    error = (reader.decode(codes, rows) - rows).square().sum(1).unflatten(0, view.acts.shape[:2]).sum(1)
    per_sample = codes.unflatten(0, view.acts.shape[:2]).amax(1)
    return Trace(per_sample.cpu(), view.acts.float().mean(1).cpu(), error.float().cpu())


@dataclass(frozen=True)
class LatentDetector:
    """The sum of log(1 + code) over the latents that an attack raises most."""

    latents: Int64[Tensor, " latent"]
    """Strongest first."""
    rises: Float[Tensor, " d_sae"]
    """Mean log(1 + code) of attacked minus clean pictures."""

    def __call__(self, seen: Trace) -> Float[np.ndarray, " sample"]:
        """Return the score of each picture."""
        return log_sum(seen.codes, self.latents).cpu().numpy()


def log_sum(codes: Float[Tensor, "sample d_sae"], latents: Int64[Tensor, " latent"]) -> Float[Tensor, " sample"]:
    """Return the sum of log(1 + code) over some latents. Gradients flow through it."""
    return torch.log1p(codes[:, latents.to(codes.device)].clamp_min(0)).sum(1).double()


def latent_detector(
    clean: Trace, attacked: Trace, choose_clean: Trace, choose_attacked: Trace, *, alive: Bool[np.ndarray, " d_sae"]
) -> LatentDetector:
    """Return the detector of latents: ranked on the first pictures, their number chosen on others by AUROC.

    Args:
        clean: pictures to rank latents on.
        attacked: the same pictures, attacked.
        choose_clean: other pictures, to choose the number of latents on.
        choose_attacked: the same, attacked.
        alive: mask of the latents to take from.
    """
    rises = torch.log1p(attacked.codes.clamp_min(0)).mean(0) - torch.log1p(clean.codes.clamp_min(0)).mean(0)
    ranked = rises.masked_fill(~torch.as_tensor(alive), -torch.inf).argsort(descending=True, stable=True)
    ranked = ranked[: int(alive.sum())]
    ks = [k for k in KS if k <= len(ranked)] or [len(ranked)]
    tried = {k: LatentDetector(ranked[:k], rises) for k in ks}
    return tried[max(ks, key=lambda k: auroc(tried[k](choose_attacked), tried[k](choose_clean)))]


def detectors(
    clean: Trace,
    attacked: Trace,
    choose_clean: Trace,
    choose_attacked: Trace,
    *,
    alive: Bool[np.ndarray, " d_sae"],
    seed: int = 0,
) -> dict[str, Score]:
    """Return the detectors of one attack, each fitted on the same pictures.

    `latents`: see `latent_detector`. `random latents`: as many living latents at random. `linear probe`: logistic
    regression on raw activations, `linear probe on codes` on log(1 + code); both are fitted on all these pictures.
    `reconstruction error` has nothing to fit.
    """
    own = latent_detector(clean, attacked, choose_clean, choose_attacked, alive=alive)
    drawn = np.random.default_rng(seed).permutation(np.flatnonzero(alive))[: len(own.latents)]
    quiet, loud = _joined(clean, choose_clean), _joined(attacked, choose_attacked)
    return {
        "latents": own,
        "random latents": LatentDetector(torch.as_tensor(drawn), own.rises),
        "linear probe": _probe(quiet, loud, lambda seen: seen.acts),
        "linear probe on codes": _probe(quiet, loud, _logs),
        "reconstruction error": lambda seen: seen.error.double().numpy(),
    }


def thresholds(score: Score, clean: Trace) -> dict[float, float]:
    """Return the threshold of each of `RATES`, from clean pictures: at most that share of them lies above it."""
    values = np.sort(score(clean))
    found = {}
    for rate in RATES:
        above = int(np.floor(rate * len(values)))
        found[rate] = float(values[len(values) - 1 - above])
    return found


@dataclass(frozen=True)
class Detected:
    """How well a detector does on test pictures; every figure with its interval by picture."""

    auroc: Interval
    found: Mapping[float, Interval]
    """Share of attacked pictures above the threshold of each false positive rate."""
    false: Mapping[float, Interval]
    """Share of clean test pictures above it: the rate that came out."""


def detected(score: Score, limits: Mapping[float, float], clean: Trace, attacked: Trace, *, seed: int = 0) -> Detected:
    """Return AUROC and rates of a detector on test pictures, clean and attacked in step.

    Args:
        score: the detector.
        limits: threshold per false positive rate, from other pictures.
        clean: clean test pictures.
        attacked: the same pictures, attacked.
        seed: seed of the bootstrap over pictures.
    """
    low, high = score(clean), score(attacked)
    rows = np.random.default_rng(seed).integers(0, len(low), (_DRAWS, len(low)))

    def figure(of: Callable[[np.ndarray, np.ndarray], float]) -> Interval:
        drawn = [of(low[r], high[r]) for r in rows]
        bottom, top = np.quantile(drawn, [0.025, 0.975])
        return of(low, high), float(bottom), float(top)

    return Detected(
        figure(lambda a, b: auroc(b, a)),
        {rate: figure(lambda a, b, limit=limit: float((b > limit).mean())) for rate, limit in limits.items()},  # type: ignore[misc]
        {rate: figure(lambda a, b, limit=limit: float((a > limit).mean())) for rate, limit in limits.items()},  # type: ignore[misc]
    )


def _probe(clean: Trace, attacked: Trace, reads: Callable[[Trace], Tensor]) -> Score:
    rows = [reads(clean), reads(attacked)]
    probe = linear_probe(torch.cat(rows), torch.arange(2).repeat_interleave(torch.tensor([len(r) for r in rows])))

    def score(seen: Trace) -> Float[np.ndarray, " sample"]:
        logits = probe(reads(seen))
        return (logits[:, 1] - logits[:, 0]).cpu().numpy()

    return score


def _logs(seen: Trace) -> Tensor:
    return torch.log1p(seen.codes.clamp_min(0))


def _joined(one: Trace, other: Trace) -> Trace:
    return Trace(*(torch.cat([getattr(one, n), getattr(other, n)]) for n in ("codes", "acts", "error")))
