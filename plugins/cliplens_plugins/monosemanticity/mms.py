"""Compute MMS, the cross-modal MonoSemanticity score (Kaushik et al., arXiv 2601.20028).

    MMS = <sum_i a_i e_i, sum_j b_j f_j> / (sum a * sum b)

a and b are the activations on images and captions, each divided by its maximum (which cancels); e and f are unit-norm
embeddings of both by one judge. Our deviation: own pairs (i = j) are excluded from both sums by default, because an
image is similar to its own caption for any latent.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cliplens.arrays import Array, as_double, check_same_rows, like, unit_rows
from cliplens.records import PairedActs, PairedCodes
from cliplens.tally import Sums

_ROWS = 8192
"""Latents whose products are in memory at a time."""


def mms(
    image_codes: Array, text_codes: Array, image_embeddings: Array, text_embeddings: Array, *, own_pairs: bool = False
) -> Array:
    """Return the cross-modal MonoSemanticity score of every latent.

    Args:
        image_codes: [pair, latent], torch or numpy, not negative.
        text_codes: [pair, latent], in the same order of pairs.
        image_embeddings: [pair, d_judge], by a judge that embeds both modalities in one space.
        text_embeddings: [pair, d_judge], by the same judge.
        own_pairs: also count each image with its own caption.

    Returns:
        [latent], float64, torch or numpy as the input. Range [-1, 1]; 1 = all images and captions on which the latent
        fires have the same embedding. nan for latents that do not fire on both modalities (in different pairs, unless
        `own_pairs`).

    Source: Kaushik et al., arXiv 2601.20028.

    >>> import numpy as np
    >>> eye = np.eye(2)
    >>> mms(np.array([[1.0], [0.0]]), np.array([[0.0], [1.0]]), eye, eye[::-1].copy())
    array([1.])
    """
    a, b = (as_double(c, "codes", ("pair", "latent")) for c in (image_codes, text_codes))
    e, f = (
        unit_rows(as_double(x, "judge embeddings", ("pair", "d_judge"))) for x in (image_embeddings, text_embeddings)
    )
    for other in (b, e, f):
        check_same_rows(a, other, "codes and judge embeddings of both modalities")
    own = (a * b).sum(0), (a * b * (e * f).sum(1, keepdim=True)).sum(0)
    return like(mms_score(a.T @ e, b.T @ f, a.sum(0), b.sum(0), *own, own_pairs=own_pairs), image_codes)


def mms_score(
    ae: Float[Tensor, "latent d_judge"],
    bf: Float[Tensor, "latent d_judge"],
    a: Float[Tensor, " latent"],
    b: Float[Tensor, " latent"],
    ab: Float[Tensor, " latent"],
    ab_alike: Float[Tensor, " latent"],
    *,
    own_pairs: bool = False,
) -> Float[Tensor, " latent"]:
    """Return MMS from the sums of a e, b f, a and b, and from those of a b and a b cos(e, f) over own pairs."""
    parts = zip(ae.split(_ROWS), bf.split(_ROWS), strict=True)
    top, weight = torch.cat([(x * y).sum(1) for x, y in parts]), a * b
    if not own_pairs:
        top, weight = top - ab_alike, weight - ab
    # Both terms are differences. If a latent fires only on own pairs, what remains of them is rounding error.
    defined = weight > 1e-12 * (a * b)
    return torch.where(defined, top / torch.where(defined, weight, 1.0), torch.nan)


def one_space(embeddings: PairedActs) -> bool:
    """Return whether the embeddings of images and captions are both present and have the same width."""
    image, text = embeddings.image, embeddings.text
    return image is not None and text is not None and image.shape[1] == text.shape[1]


def add_own_pairs(sums: Sums, codes: PairedCodes, embeddings: PairedActs, first: Bool[np.ndarray, " row"]) -> None:
    """Add the sums over own pairs that MMS subtracts: a b and a b cos(e, f), for unit-norm embeddings.

    An image with several captions has several own pairs; `first` marks the first row of each image and caption.
    """
    assert embeddings.image is not None
    assert embeddings.text is not None
    alike = (embeddings.image * embeddings.text).sum(1).cpu()
    joint = codes.joint
    counted = torch.as_tensor(first, device=joint.rows.device)[joint.rows]
    together = (joint.image != 0) & (joint.text != 0) & counted
    latents, rows = joint.latents[together].cpu(), joint.rows[together].cpu()
    ab = (joint.image[together].double() * joint.text[together].double()).cpu()
    sums.add_per_latent("ab", latents, ab, codes.d_sae)
    sums.add_per_latent("ab_alike", latents, ab * alike[rows], codes.d_sae)
