"""Decide for each concept: collect images, rewrite captions, or no advice. Intervals support each decision."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cliplens.hooked import HookedCLIP
from cliplens.sae import Dictionary
from cliplens.shapes import Images, Tokens
from cliplens.sites import MODALITIES
from cliplens.statistics import mean_interval, wilson_interval
from cliplens.studies import embed_without
from cliplens.tasks import contrastive_losses
from cliplens_plugins.advice.coverage import Coverage
from cliplens_plugins.advice.scores import PairScores, strong

Decision = Literal["collect images", "rewrite captions", "no advice"]
LEAST_SHARE = 0.05
"""Captions count as faulty if more than this share of them misses (or contradicts) the concept."""
Interval = tuple[float, float, float]


@dataclass(frozen=True)
class Concept:
    """One latent, taken as a concept. Each interval is a value with its 95 % limits: (value, low, high)."""

    latent: int
    missed: Interval
    """Share of images with the concept whose caption misses it."""
    contradicted: Interval
    """Share of captions with the concept whose image lacks it."""
    led: Interval
    """Contrastive loss without the latent in the image tower, minus the loss without it in the text tower, in nats per
    pair on which it fires. Above 0 the concept is image-led, below 0 caption-led."""
    covered: Interval | None
    """Share of the concept in the pairs, divided by its share in the target set; None without a target set."""
    excess: float
    """Mean loss of the pairs in which it is missed or contradicted, minus that of its other pairs, in nats: the most
    that correcting them could gain."""
    under_covered: bool = False
    """Whether its share in the pairs is below half of that in the target set."""

    @property
    def decision(self) -> Decision:
        """The decision. Collect images if the concept is under-covered and image-led; rewrite captions if they miss or
        contradict it and it is caption-led; otherwise, or if the interval of `led` contains 0, no advice."""
        if self.under_covered and self.led[1] > 0:
            return "collect images"
        faulted = any(low > LEAST_SHARE for _, low, _ in (self.missed, self.contradicted))
        if faulted and self.led[2] < 0:
            return "rewrite captions"
        return "no advice"


@torch.no_grad()
def concepts_of(
    clip: HookedCLIP,
    dictionary: Dictionary,
    images: Images,
    tokens: Tokens,
    codes: tuple[Float[np.ndarray, "pair d_sae"], Float[np.ndarray, "pair d_sae"]],
    scores: PairScores,
    latents: Sequence[int],
    *,
    covered: Coverage | None = None,
    forward_batch: int = 64,
) -> list[Concept]:
    """Return the decision for each latent in `latents`, with the figures that support it.

    Args:
        clip: the model.
        dictionary: a dictionary of both towers.
        images: preprocessed images of the pairs.
        tokens: token ids of their captions.
        codes: codes of the images, and codes of the captions.
        scores: scores of the same pairs.
        latents: the latents to decide on.
        covered: coverage of the concepts compared with a target set; None without one.
        forward_batch: pairs per forward pass.
    """
    parts = np.arange(dictionary.d_sae) == np.asarray(latents)[:, None]
    cases = np.zeros((len(latents) + 1, len(latents) + 1), dtype=bool)
    cases[1:, :-1] = np.eye(len(latents), dtype=bool)
    inputs = {"image": images, "text": tokens}
    embedded = {
        m: embed_without(clip, dictionary, m, inputs[m], parts, cases, forward_batch=forward_batch) for m in MODALITIES
    }
    scale, bias = clip.logit_scale_and_bias()
    known = float(scale), None if bias is None else float(bias)

    def loss(image: Tensor, text: Tensor) -> np.ndarray:
        found: np.ndarray = contrastive_losses(image, text, *known).cpu().numpy()
        return found

    image, text = embedded["image"], embedded["text"]
    clean = loss(image[0], text[0])
    found = []
    for n, k in enumerate(latents, 1):
        fires = (codes[0][:, k] > 0) | (codes[1][:, k] > 0)
        lead = (loss(image[n], text[0]) - loss(image[0], text[n]))[fires]
        against = scores.missed[:, k] | scores.contradicted[:, k]
        found.append(
            Concept(
                int(k),
                _share(scores.missed[:, k], strong(codes[0][:, [k]])[:, 0]),
                _share(scores.contradicted[:, k], strong(codes[1][:, [k]])[:, 0]),
                mean_interval(lead, draws=1000) if len(lead) else (float("nan"),) * 3,
                None if covered is None else (float(covered.ratio[k]), float(covered.low[k]), float(covered.high[k])),
                _excess(clean, against, fires & ~against),
                False if covered is None else bool(covered.under_covered[k]),
            )
        )
    return found


def _share(hits: Bool[np.ndarray, " pair"], of: Bool[np.ndarray, " pair"]) -> Interval:
    n = int(of.sum())
    if not n:
        return (float("nan"),) * 3
    value = float(hits[of].mean())
    low, high = wilson_interval(np.array([value]), np.array([float(n)]))
    return value, float(low[0]), float(high[0])


def _excess(loss: np.ndarray, against: np.ndarray, others: np.ndarray) -> float:
    if not against.any() or not others.any():
        return float("nan")
    return float(loss[against].mean() - loss[others].mean())
