"""MMS, the cross-modal MonoSemanticity score (Kaushik et al., arXiv 2601.20028).

    MMS = <sum_i a_i e_i, sum_j b_j f_j> / (sum a * sum b)

a, b: activations on images and captions, each divided by its maximum (which cancels); e, f: unit-norm embeddings of
both by one judge. Own pairs, i = j, are left out of both sums by default: an image is like its own caption whatever the
latent.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cliplens.arrays import Array, as_double, check_same_rows, like, unit_rows
from cliplens.records import PairedActs, PairedCodes
from cliplens.tally import Sums


def mms(
    image_codes: Array, text_codes: Array, image_embeddings: Array, text_embeddings: Array, *, own_pairs: bool = False
) -> Array:
    """Cross-modal MonoSemanticity score of every latent.

    Args:
        image_codes: [pair, latent], torch or numpy, not negative.
        text_codes: [pair, latent], in step.
        image_embeddings: [pair, d_judge], by a judge that embeds both modalities.
        text_embeddings: [pair, d_judge], by the same judge.
        own_pairs: keep each image with its own caption.

    Returns:
        [latent], float64, of the kind given. Range [-1, 1]; nan where the latent does not fire on both modalities (of
        different pairs, when own pairs are left out).

    Source: Kaushik et al., arXiv 2601.20028.
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
    """MMS from the sums sum a e, sum b f, sum a, sum b and, of own pairs, sum a b and sum a b cos(e, f)."""
    top, weight = (ae * bf).sum(1), a * b
    if not own_pairs:
        top, weight = top - ab_alike, weight - ab
    # The two sums are differences: what is left of a product when a latent fires on own pairs alone is rounding.
    defined = weight > 1e-12 * (a * b)
    return torch.where(defined, top / torch.where(defined, weight, 1.0), torch.nan)


def one_space(embeddings: PairedActs) -> bool:
    """Whether a judge embeds images and captions in one space: both are there, and equally wide."""
    image, text = embeddings.image, embeddings.text
    return image is not None and text is not None and image.shape[1] == text.shape[1]


def add_own_pairs(sums: Sums, codes: PairedCodes, embeddings: PairedActs, first: Bool[np.ndarray, " row"]) -> None:
    """Add what MMS needs to leave own pairs out: sum a b and sum a b cos(e, f), of unit-norm embeddings.

    A picture with several captions has several own pairs; `first` says which rows are the first of their picture and
    caption.
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
