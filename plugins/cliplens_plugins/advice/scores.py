"""Score pairs: captions that miss what the image shows or mention what it lacks, and two published scores."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cliplens.arrays import as_double
from cliplens.errors import InputError

Codes = Float[np.ndarray, "pair d_sae"]
SHARE = 0.1
"""A latent is strong on the samples in this upper share of its values."""
LEAST_RATE = 0.5
"""Mention rate from which a latent counts."""
LEAST_PAIRS = 10
"""Number of strong firings from which a mention rate is computed."""
_TOP = 5


@dataclass(frozen=True)
class PairScores:
    """The scores of each pair, and the latents that they are sums over."""

    misses: Float[np.ndarray, " pair"]
    """The caption misses what the image shows: the sum of mention rates of the latents in `missed`."""
    contradicts: Float[np.ndarray, " pair"]
    """The caption mentions what the image lacks: the sum of mention rates of the latents in `contradicted`."""
    missed: Bool[np.ndarray, "pair d_sae"]
    """Latents that are strong on the image, are usually mentioned, and do not fire on the caption."""
    contradicted: Bool[np.ndarray, "pair d_sae"]
    """Latents that are strong on the caption, usually fire on the image then, and do not fire on this image."""
    rate_image: Float[np.ndarray, " d_sae"]
    """Mention rate: how often a latent that is strong on the image fires on the caption; nan if it is strong on fewer
    than 10 images."""
    rate_text: Float[np.ndarray, " d_sae"]
    """How often a latent that is strong on the caption fires on the image; nan as above."""

    @property
    def usable(self) -> float:
        """Share, among latents with a known mention rate, of those with a rate of at least .5. Only these can show that
        a caption is wrong. A dictionary with separate latents for images and captions has none."""
        known = ~(np.isnan(self.rate_image) & np.isnan(self.rate_text))
        good = np.maximum(np.nan_to_num(self.rate_image), np.nan_to_num(self.rate_text)) >= LEAST_RATE
        return float(good[known].mean()) if known.any() else 0.0

    def of(self, pair: int) -> tuple[list[int], list[int]]:
        """Return the latents that are missed and those that are contradicted in a pair, highest mention rate first."""
        both = ((self.missed[pair], self.rate_image), (self.contradicted[pair], self.rate_text))
        return tuple([int(k) for k in np.argsort(-np.nan_to_num(r)) if m[k]] for m, r in both)  # type: ignore[return-value]


def strong(codes: Codes, share: float = SHARE) -> Bool[np.ndarray, "pair d_sae"]:
    """Return a mask of the pairs on which each latent is in the top `share` of its values and fires.

    >>> strong(np.array([[0.0], [1.0], [3.0], [2.0]]), 0.5).ravel().tolist()
    [False, False, True, True]
    """
    return (codes > 0) & (codes >= np.quantile(codes, 1 - share, axis=0, method="higher"))


def mention_rates(
    codes: Codes, other: Codes, *, least: int = LEAST_PAIRS, trusted: Bool[np.ndarray, " pair"] | None = None
) -> Float[np.ndarray, " d_sae"]:
    """Return how often each latent fires in the other modality of the pairs on which it is strong in this one.

    Args:
        codes: codes of one modality.
        other: codes of the other modality, in step.
        least: number of strong firings below which the rate is nan.
        trusted: pairs to count in; None counts in all.
    """
    here = strong(codes)
    if trusted is not None:
        here = here & trusted[:, None]
    count = here.sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(count >= least, (here & (other > 0)).sum(0) / count, np.nan)


def score_pairs(
    image: Codes,
    text: Codes,
    *,
    least_rate: float = LEAST_RATE,
    least: int = LEAST_PAIRS,
    trusted: Bool[np.ndarray, " pair"] | None = None,
) -> PairScores:
    """Return the scores of pairs from the codes of their images and captions.

    A caption misses what the image shows if a latent is strong on the image and does not fire on the caption. The score
    is the sum of the mention rates of these latents; latents with a rate below `least_rate` do not count. The same with
    image and caption exchanged scores captions that mention what the image lacks.

    Args:
        image: codes of the images.
        text: codes of the captions, in step, by the same dictionary.
        least_rate: mention rate from which a latent counts.
        least: number of strong firings below which a mention rate is unknown.
        trusted: pairs in which mention rates are counted; None takes all. If most captions are wrong about a concept,
            its mention rate over all pairs falls below `least_rate`, and none of these captions is found; in the pairs
            of `well_matched` this is unlikely.

    Raises:
        InputError: there is no pair, or images and captions differ in shape.
        NonFiniteError: codes hold nan or inf.

    Source: ours.
    """
    for codes, name in ((image, "codes of images"), (text, "codes of captions")):
        as_double(codes, name, ("pair", "latent"))
    if image.shape != text.shape or not len(image):
        raise InputError(
            expected="codes of the images and captions of one pair or more",
            found=f"shapes {image.shape} and {text.shape}",
            fix="pass codes of the same pairs by the same dictionary",
        )
    how: Any = {"least": least, "trusted": trusted}
    rates = mention_rates(image, text, **how), mention_rates(text, image, **how)
    weights = [np.where(np.nan_to_num(r) >= least_rate, np.nan_to_num(r), 0.0) for r in rates]
    missed = strong(image) & (text <= 0) & (weights[0] > 0)
    contradicted = strong(text) & (image <= 0) & (weights[1] > 0)
    return PairScores(missed @ weights[0], contradicted @ weights[1], missed, contradicted, *rates)


def well_matched(clip: Float[np.ndarray, " pair"]) -> Bool[np.ndarray, " pair"]:
    """Return a mask of the half of the pairs with the higher CLIP score; ties with the median count as high.

    >>> well_matched(np.array([0.1, 0.5, 0.3, 0.4])).tolist()
    [False, True, False, True]
    """
    mask: Bool[np.ndarray, " pair"] = clip >= np.quantile(clip, 0.5, method="higher")
    return mask


def misfit(scores: PairScores, clip: Float[np.ndarray, " pair"]) -> Float[np.ndarray, " pair"]:
    """Return how badly caption and image fit, by latents and CLIP score together: high for pairs that do not match.

    The sum of `misses` and `contradicts` and the negative CLIP score, each in standard deviations from its mean. 0 on
    average.

    Args:
        scores: scores of the pairs by latents.
        clip: CLIP score of the same pairs.

    Source: ours. docs/advice.md says where each part alone is better.
    """
    parts = (scores.misses + scores.contradicts, -clip)
    varied = [part for part in parts if np.ptp(part) > 0]
    return sum(((part - part.mean()) / part.std() for part in varied), np.zeros(len(clip)))


def clip_score(image: Float[Tensor, "pair d"], text: Float[Tensor, "pair d"]) -> Float[np.ndarray, " pair"]:
    """Return CLIPScore, 2.5 max(cosine, 0), of each pair. It is high for pairs that match.

    Source: Hessel et al., arXiv 2104.08718.

    >>> clip_score(torch.eye(2), torch.eye(2)[[0, 0]]).tolist()
    [2.5, 0.0]
    """
    cosine = torch.nn.functional.cosine_similarity(image.double(), text.double(), dim=1)
    return 2.5 * cosine.clamp_min(0).cpu().numpy()


def sae_v(
    image: Codes, text: Codes, image_rows: Float[Tensor, "pair d"], text_rows: Float[Tensor, "pair d"]
) -> Float[np.ndarray, " pair"]:
    """Return a score like SAE-V of each pair: the sum of omega over latents that fire on both image and caption.

    The omega of a latent is the mean cosine between the centred embeddings of its five strongest images and of its five
    strongest captions; 0 if it fires on fewer than five of either. The score is high for pairs that match.

    Source: adapted from SAE-V, arXiv 2502.17514, which works on tokens of a language model.
    """
    rows = [
        torch.nn.functional.normalize((r - r.mean(0)).double(), dim=1).cpu().numpy() for r in (image_rows, text_rows)
    ]
    omega = np.zeros(image.shape[1])
    for k in np.flatnonzero(((image > 0).sum(0) >= _TOP) & ((text > 0).sum(0) >= _TOP)):
        tops = [np.argsort(-codes[:, k], kind="stable")[:_TOP] for codes in (image, text)]
        omega[k] = (rows[0][tops[0]] @ rows[1][tops[1]].T).mean()
    return ((image > 0) & (text > 0)) @ omega
