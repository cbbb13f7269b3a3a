"""Test MDS against the null hypothesis that image and caption of a pair are exchangeable.

Swapping the two turns a ratio r into 1 - r. Under the null hypothesis, the sum of d = r - 1/2 is therefore a sum of
fixed magnitudes |d| with random signs. Drawing B permutations cannot give p below 1/(B+1), which is too coarse for
thousands of latents. Instead, the tail of the sum is bounded analytically, with t = |sum d| / sqrt(sum d^2):

    p = min(1, 2 c (1 - Phi(t))),        c = 1 / (4 (1 - Phi(sqrt 2))) = 3.178...

The bound is by Bentkus and Dzindzalieta ("A tight Gaussian bound for weighted sums of Rademacher random variables",
Bernoulli 21, 2015; equality at two equal terms). Hoeffding's, 2 exp(-t^2 / 2), is above it wherever it is below 1. So p
is never below the exact permutation p, and about three times as large if many pairs fire: the false discovery rate
stays below nominal, at a small cost in power. Pairs with the same picture are swapped together, so their d are added
first.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.special import log_ndtr, ndtr
from torch import Tensor

from cliplens.statistics import benjamini_hochberg
from cliplens.tally import Sums
from cliplens_plugins.modality.pictures import PictureSums

_C = float(1 / (4 * ndtr(-np.sqrt(2.0))))


def swap_p(d1: Float[Tensor, " d_sae"], d2: Float[Tensor, " d_sae"]) -> Float[np.ndarray, " d_sae"]:
    """Return the two-sided p of the null hypothesis from the sums of d and d^2; 1 where all ratios are 1/2."""
    t: np.ndarray = torch.where(d2 > 0, d1.abs() / d2.clamp_min(1e-300).sqrt(), 0.0).cpu().numpy()
    return np.exp(np.minimum(0.0, np.log(2 * _C) + log_ndtr(-t)))


def swap_q(sums: Sums, pictures: PictureSums) -> Float[np.ndarray, " d_sae"]:
    """Return the q value of every living latent (Benjamini-Hochberg over latents); nan for dead latents.

    All pairs of a picture are swapped together.
    """
    alive = (sums["any"] > 0).cpu().numpy()
    return benjamini_hochberg(np.where(alive, swap_p(sums["d1"], torch.as_tensor(pictures.d2)), np.nan))


def classify_significant(
    scores: Float[np.ndarray, " d_sae"],
    low: Float[np.ndarray, " d_sae"],
    high: Float[np.ndarray, " d_sae"],
    q: Float[np.ndarray, " d_sae"],
    cuts: tuple[float, float],
    both_fire: Bool[np.ndarray, " d_sae"],
    level: float = 0.05,
) -> np.ndarray:
    """Return the class of each latent if the evidence decides it, else `undecided`.

    `ImgD` if q <= level and the whole interval is above the upper cut; `TextD` likewise below the lower cut; `CrossD`
    if the whole interval is between the cuts and the latent fires in both modalities; `dead` if the score is nan. A
    small q alone decides no class, because it only excludes a score of 1/2.

    Args:
        scores: MDS of each latent, nan = never fires.
        low: lower limit of the interval of each latent.
        high: upper limit of the interval of each latent.
        q: q value of each latent.
        cuts: the lower and the upper cut.
        both_fire: whether each latent fires on an image and on a caption.
        level: largest q that is significant.
    """
    sure = q <= level
    crossed = both_fire & (low >= cuts[0]) & (high <= cuts[1])
    cases = [np.isnan(scores), sure & (low > cuts[1]), sure & (high < cuts[0]), crossed]
    return np.select(cases, ["dead", "ImgD", "TextD", "CrossD"], default="undecided")
