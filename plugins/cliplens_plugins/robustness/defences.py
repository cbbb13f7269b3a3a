"""Clean-up of activations, and attacks that know it: through the clean-up, and past a detector."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor

from cliplens_plugins.robustness.detectors import LatentDetector, Trace, log_sum
from cliplens_plugins.robustness.eye import Eye, Reader
from cliplens_plugins.robustness.losses import margins
from cliplens_plugins.robustness.pgd import Objective, Scored
from cliplens_plugins.robustness.pixels import Pixels


def soft_codes(reader: Reader, rows: Float[Tensor, "row d_in"]) -> Float[Tensor, "row d_sae"]:
    """Return codes whose gradient is that of ReLU (straight-through): their values are exact, but silent latents with a
    pre-activation above 0 pass a gradient too.
    """
    codes, pre = reader.read(rows)
    soft = torch.relu(pre)
    return codes.detach() + soft - soft.detach()


@dataclass(frozen=True)
class CleanUp:
    """Set the codes of some latents to their clean mean.

    With the error term kept, an activation changes by the decoded change alone, so what an attack did outside the
    dictionary stays. Without it, the activation becomes the reconstruction.
    """

    reader: Reader
    latents: Int64[Tensor, " latent"]
    means: Float[Tensor, " latent"]
    """Mean code of each of these latents on clean pictures."""
    keep_error: bool
    straight_through: bool = True
    """Whether gradients pass top-k and thresholds, for attacks that go through the clean-up."""

    def __call__(self, rows: Float[Tensor, "row d_in"]) -> Float[Tensor, "row d_in"]:
        """Return the cleaned activations."""
        codes = soft_codes(self.reader, rows) if self.straight_through else self.reader.codes(rows)
        at = self.latents.to(codes.device)
        kept = torch.ones(codes.shape[1], dtype=torch.bool, device=codes.device)
        kept[at] = False
        means = torch.zeros(codes.shape[1]).to(codes)
        means[at] = self.means.to(codes)
        after = self.reader.decode(torch.where(kept, codes, means), rows)
        return rows + after - self.reader.decode(codes, rows) if self.keep_error else after


def clean_up(
    reader: Reader,
    latents: Int64[Tensor, " latent"],
    clean: Float[Tensor, "sample pos d_in"],
    *,
    keep_error: bool,
    straight_through: bool = True,
) -> CleanUp:
    """Return the clean-up of some latents, with their mean codes over clean activations."""
    with torch.no_grad():
        means = reader.codes(clean.flatten(0, 1))[:, latents.cpu()].mean(0)
    return CleanUp(reader, latents, means, keep_error, straight_through)


@dataclass(frozen=True)
class Alarm:
    """A detector with its threshold, and the scale of its score on clean pictures."""

    detector: LatentDetector
    limit: float
    mean: float
    deviation: float

    @classmethod
    def of(cls, detector: LatentDetector, limit: float, clean: Trace) -> "Alarm":
        """Return the alarm, with mean and deviation of the score over clean pictures."""
        score = torch.as_tensor(detector(clean))
        return cls(detector, limit, float(score.mean()), max(float(score.std(correction=0)), 1e-9))


def past_detector(
    eye: Eye,
    prototypes: Float[Tensor, "class d"],
    labels: Int[Tensor, " sample"],
    alarm: Alarm,
    weight: float,
) -> Objective:
    """Return margin - weight * score: an attack that avoids the detector. The score is in deviations of clean ones.

    The best iterate is the one with the largest margin among those that raise no alarm, if there are any.

    Args:
        eye: the model with its dictionary.
        prototypes: one unit-norm embedding per class.
        labels: the class of each picture.
        alarm: the detector.
        weight: 0 ignores the detector.
    """
    reader = eye.reader
    assert reader is not None

    def objective(pixels: Pixels, rows: Tensor) -> Scored:
        view = eye.look(pixels)
        margin = margins(view.unit, prototypes, labels[rows])
        if weight == 0:
            return margin, margin
        assert view.acts is not None
        codes = soft_codes(reader, view.acts.flatten(0, 1)).unflatten(0, view.acts.shape[:2]).amax(1)
        score = log_sum(codes, alarm.detector.latents)
        aim = margin - weight * ((score - alarm.mean) / alarm.deviation).to(margin)
        return aim, margin - 4.0 * (score > alarm.limit).to(margin)  # a margin lies within [-2, 2]

    return objective
