"""Compute the MonoSemanticity score (Pach et al., arXiv 2504.02821), exactly and in one pass.

Let a be the activations of a latent, min-max scaled to [0, 1] over the data, and e unit-norm judge embeddings. Then

    MS = sum over i<j of a_i a_j cos(e_i, e_j)  /  sum over i<j of a_i a_j
       = (|sum a e|^2 - sum a^2) / ((sum a)^2 - sum a^2)

The authors visit every pair of samples, O(M^2); the second form is O(M) and mergeable (also in MonoLoss, arXiv
2602.12403). The division by (max - min) cancels. The shift by the minimum is applied at the end, to the sums.
"""

import torch
from jaxtyping import Float, Shaped
from scipy.sparse import csr_matrix
from torch import Tensor

from cliplens.arrays import Array, as_double, check_same_rows, like, unit_rows

_BLOCK = 1 << 22
_SPARSE = 0.1


def ms(activations: Array, embeddings: Array) -> Array:
    """Return the MonoSemanticity score of every latent.

    Args:
        activations: [sample, latent], torch or numpy.
        embeddings: [sample, d_judge], by an encoder independent of the model studied; normalised internally, in
            float64.

    Returns:
        [latent], float64, torch or numpy as the input. Range [-1, 1]; 1 = all samples on which the latent fires have
        the same judge embedding. nan unless at least two samples exceed the latent's minimum.

    Raises:
        InputError: the numbers of rows differ, or an embedding is zero.
        NonFiniteError: the activations or embeddings contain nan or inf.

    Source: Pach et al., arXiv 2504.02821; the one-pass form also in arXiv 2602.12403.

    >>> import numpy as np
    >>> ms(np.array([[1.0], [1.0], [0.0]]), np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))
    array([1.])
    """
    acts = as_double(activations, "activations", ("sample", "latent"))
    judged = unit_rows(as_double(embeddings, "judge embeddings", ("sample", "d_judge")))
    check_same_rows(acts, judged, "activations and judge embeddings")
    n_latents = acts.shape[1]
    if not len(acts):
        return like(acts.new_full((n_latents,), torch.nan), activations)
    low = acts.amin(0)
    exceeding = (acts > low).sum(0)
    span = torch.where(exceeding > 0, acts.amax(0) - low, 1.0)
    total, square = acts.new_zeros(n_latents), acts.new_zeros(n_latents)
    weighted = acts.new_zeros(n_latents, judged.shape[1])
    rows = max(1, _BLOCK // n_latents) if n_latents else 1
    for start in range(0, len(acts), rows):
        scaled = (acts[start : start + rows] - low) / span
        total += scaled.sum(0)
        square += (scaled * scaled).sum(0)
        weighted += _product(scaled, judged[start : start + rows])
    return like(score(total, square, (weighted * weighted).sum(1), exceeding), activations)


def _product(
    scaled: Float[Tensor, "row latent"], judged: Float[Tensor, "row d_judge"]
) -> Float[Tensor, "latent d_judge"]:
    """Return the sum over rows of a e; uses a sparse product if few entries are non-zero, as in dictionary codes."""
    if scaled.device.type != "cpu" or int(scaled.count_nonzero()) > _SPARSE * scaled.numel():
        return scaled.T @ judged
    return torch.as_tensor(csr_matrix(scaled.numpy()).T @ judged.numpy())


def score(
    total: Float[Tensor, " latent"],
    square: Float[Tensor, " latent"],
    length: Float[Tensor, " latent"],
    exceeding: Shaped[Tensor, " latent"],
) -> Float[Tensor, " latent"]:
    """Return MS from sum a, sum a^2, |sum a e|^2 of activations shifted to minimum 0, and the number above 0."""
    return torch.where(exceeding >= 2, (length - square) / (total * total - square), torch.nan)
