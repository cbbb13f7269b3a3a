"""The Modality Dominance Score (Yan et al., "The Multi-Faceted Monosemanticity in Multimodal Representations",
arXiv 2502.14888): where a latent fires, from 0 (captions only) to 1 (images only). A reimplementation: the paper's code
was not published, and its equations could not be checked word for word, so each plausible reading is a named variant.

The default, `pairs`, with I and T the activations of latent k on image and caption of pair m:

    R[k] = mean over {m : |I[m,k]| + |T[m,k]| > 0} of  |I[m,k]| / (|I[m,k]| + |T[m,k]|)

| variant | what it is | source |
|---|---|---|
| `pairs` | mean of per-pair ratios, silent pairs skipped | arXiv 2502.14888 |
| `half` | silent pairs count as one half | reading of the same |
| `eps` | an epsilon in the denominator, silent pairs count as 0; kept to show how it fails | reading of the same |
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
    """Modality Dominance Score of every latent.

    Args:
        image_codes: [pair, latent], torch or numpy; signed codes are scored by size.
        text_codes: [pair, latent], in step with the images, by the same dictionary.
        variant: one of `VARIANTS`.

    Returns:
        [latent], float64, of the kind given. Range [0, 1], 1 = fires on images only; nan = never fires.

    Raises:
        InputError: the shapes differ.
        UnknownNameError: there is no such variant.
        NonFiniteError: nan or inf among the codes.

    Source: Yan et al., arXiv 2502.14888 (reimplementation); other variants as in this module's table.
    """
    if variant not in VARIANTS:
        raise unknown_name("variant of the modality score", variant, VARIANTS)
    return like(VARIANTS[variant](sums_of_codes(image_codes, text_codes)), image_codes)


def pairs(sums: Sums) -> Float[Tensor, " d_sae"]:
    """Mean of per-pair ratios, silent pairs skipped: the default."""
    return 0.5 + sums["d1"] / sums["any"]


def half(sums: Sums) -> Float[Tensor, " d_sae"]:
    """Mean of per-pair ratios, silent pairs counted as one half."""
    return _living(0.5 + sums["d1"] / sums["pairs"], sums)


def eps(sums: Sums) -> Float[Tensor, " d_sae"]:
    """The naive ratio with an epsilon in the denominator: silent pairs count as 0, so sparse latents look like text."""
    return _living(sums["eps"] / sums["pairs"], sums)


def ratio_of_means(sums: Sums) -> Float[Tensor, " d_sae"]:
    """Mean image activation over the sum of both means."""
    return sums["image"] / (sums["image"] + sums["text"])


def energy(sums: Sums) -> Float[Tensor, " d_sae"]:
    """Mean square of image activations over the sum of both; the source calls latents outside [.05, .95] unimodal."""
    return sums["image2"] / (sums["image2"] + sums["text2"])


def firing(sums: Sums) -> Float[Tensor, " d_sae"]:
    """Image firing rate over the sum of both."""
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
