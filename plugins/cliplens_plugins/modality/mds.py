"""Compute the Modality Dominance Score (Yan et al., "The Multi-Faceted Monosemanticity in Multimodal Representations",
arXiv 2502.14888), from 0 (the latent fires on captions only) to 1 (on images only). This is a reimplementation: the
paper published no code, and its text allows several readings, each of which is a named variant.

The default is `pairs`. I and T are the activations of latent k on image and caption of pair m:

    R[k] = mean over {m : |I[m,k]| + |T[m,k]| > 0} of  |I[m,k]| / (|I[m,k]| + |T[m,k]|)

| variant | definition | source |
|---|---|---|
| `pairs` | mean of the ratios of pairs, silent pairs skipped | arXiv 2502.14888 |
| `half` | silent pairs count as one half | reading of the same |
| `eps` | epsilon in the denominator, silent pairs count as 0; fails on sparse codes | reading of the same |
| `ratio_of_means` | E abs(I) / (E abs(I) + E abs(T)) | Papadimitriou et al., arXiv 2504.11695 |
| `energy` | E I^2 / (E I^2 + E T^2) | Dhimoila et al., arXiv 2602.06218 |
| `firing` | P(I>0) / (P(I>0) + P(T>0)) | ours |
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from cliplens.arrays import Array, like
from cliplens.errors import unknown_name
from cliplens.tally import Sums
from cliplens_plugins.modality.sums import sums_of_codes

_Score = Callable[[Sums], Float[Tensor, " d_sae"]]


def mds(image_codes: Array, text_codes: Array, *, variant: str = "pairs") -> Array:
    """Return the Modality Dominance Score of every latent.

    Args:
        image_codes: [pair, latent], torch or numpy; of signed codes, the absolute value counts.
        text_codes: [pair, latent], by the same dictionary, in the same order of pairs.
        variant: one of `VARIANTS`.

    Returns:
        [latent], float64, torch or numpy as the input. Range [0, 1], 1 = fires on images only; nan = never fires.

    Raises:
        InputError: the shapes differ.
        UnknownNameError: `variant` is not in `VARIANTS`.
        NonFiniteError: the codes contain nan or inf.

    Source: Yan et al., arXiv 2502.14888 (reimplementation); other variants as in this module's table.

    >>> import numpy as np
    >>> mds(np.array([[3.0, 0.0], [1.0, 0.0]]), np.array([[1.0, 2.0], [1.0, 0.0]]))
    array([0.625, 0.   ])
    """
    if variant not in VARIANTS:
        raise unknown_name("variant of the modality score", variant, VARIANTS)
    return like(VARIANTS[variant](sums_of_codes(image_codes, text_codes)), image_codes)


def pairs(sums: Sums) -> Float[Tensor, " d_sae"]:
    """Return the mean of the ratios of pairs, silent pairs skipped; the default."""
    return 0.5 + sums["d1"] / sums["any"]


def half(sums: Sums) -> Float[Tensor, " d_sae"]:
    """Return the mean of the ratios of pairs, silent pairs counted as one half."""
    return _living(0.5 + sums["d1"] / sums["pairs"], sums)


def eps(sums: Sums) -> Float[Tensor, " d_sae"]:
    """Return the mean ratio with an epsilon in the denominator; silent pairs count as 0, which biases it to TextD."""
    return _living(sums["eps"] / sums["pairs"], sums)


def ratio_of_means(sums: Sums) -> Float[Tensor, " d_sae"]:
    """Return the mean image activation divided by the sum of both means."""
    return sums["image"] / (sums["image"] + sums["text"])


def energy(sums: Sums) -> Float[Tensor, " d_sae"]:
    """Return the mean squared image activation divided by the sum of both mean squares."""
    return sums["image2"] / (sums["image2"] + sums["text2"])


def firing(sums: Sums) -> Float[Tensor, " d_sae"]:
    """Return the image firing rate divided by the sum of both rates."""
    return sums["fires_image"].double() / (sums["fires_image"] + sums["fires_text"])


def _living(scores: Tensor, sums: Sums) -> Tensor:
    return torch.where(sums["any"] > 0, scores, torch.nan)


VARIANTS: dict[str, _Score] = {
    "pairs": pairs,
    "half": half,
    "eps": eps,
    "ratio_of_means": ratio_of_means,
    "energy": energy,
    "firing": firing,
}
