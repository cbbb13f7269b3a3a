"""CKNNA: measure whether samples have the same neighbours in two representations. Huh et al., arXiv 2405.07987.

    CKNNA = HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L))

K and L are the linear kernels of the representations. Entries (i, j) are set to 0 unless j is among the k nearest
neighbours of i in both kernels. HSIC is the unbiased estimator (Song et al. 2012), with zero diagonals:

    HSIC(K, L) = [ tr(KL') + 1'K1 1'L1 / ((n-1)(n-2)) - (1'KL1 + 1'LK1) / (n-2) ] / (n (n-3))

These kernels are not symmetric. The authors' code uses tr(KL) and 1'KL1, so its result depends on the order of the two
representations. Here tr(KL') follows the definition of alpha(i, j) in the paper, and the two orders are averaged. For
symmetric kernels, both are the usual estimate.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cliplens.arrays import Array, as_double, check_same_rows
from cliplens.errors import InputError


def cknna(a: Array, b: Array, k: int = 10) -> float:
    """Return the CKNNA of two representations of the same samples.

    Args:
        a: [sample, d], torch or numpy.
        b: [sample, other_d], of the same samples.
        k: number of nearest neighbours by inner product, without the sample itself.

    Returns:
        About 1 for equal representations and about 0 for unrelated ones (see `cknna_by_chance`). nan if no two samples
        are neighbours in both, or if an HSIC is not above 0.

    Raises:
        InputError: the numbers of samples differ, or there are max(k, 3) samples or fewer.
        NonFiniteError: an array contains nan or inf.

    Source: Huh et al., arXiv 2405.07987. Their code adds 1e-6 to the denominator; here 0/0 is nan.
    """
    x, y = _samples(a, b, k)
    kernels = [rows @ rows.T for rows in (x, y)]
    near = [_neighbours(kernel, k) for kernel in kernels]
    own = [unbiased_hsic(kernel * mask, kernel * mask) for kernel, mask in zip(kernels, near, strict=True)]
    both = near[0] & near[1]
    size = own[0] * own[1]
    if not both.any() or min(own) <= 0:
        return float("nan")
    return unbiased_hsic(kernels[0] * both, kernels[1] * both) / size**0.5


def cknna_by_chance(a: Array, b: Array, k: int = 10, *, draws: int = 10, seed: int = 0) -> tuple[float, float]:
    """Return mean and standard deviation of the CKNNA after permuting the samples of `b`: the chance level.

    Raises:
        InputError: as `cknna`.
    """
    x, y = _samples(a, b, k)
    rng = np.random.default_rng(seed)
    drawn = [cknna(x, y[torch.as_tensor(rng.permutation(len(y)), device=y.device)], k) for _ in range(draws)]
    known = np.nan_to_num(np.array(drawn))  # without common neighbours there is no agreement
    return float(known.mean()), float(known.std())


def unbiased_hsic(K: Float[Tensor, "sample sample"], L: Float[Tensor, "sample sample"]) -> float:
    """Return the unbiased estimate of HSIC. Diagonals are set to 0."""
    n = len(K)
    K, L = (m.clone().fill_diagonal_(0) for m in (K, L))
    across = (K.sum(0) @ L.sum(1) + K.sum(1) @ L.sum(0)) / 2
    total = (K * L).sum() + K.sum() * L.sum() / ((n - 1) * (n - 2)) - 2 * across / (n - 2)
    return float(total) / (n * (n - 3))


def _neighbours(kernel: Float[Tensor, "sample sample"], k: int) -> Bool[Tensor, "sample sample"]:
    others = kernel.clone().fill_diagonal_(-torch.inf)
    return torch.zeros_like(kernel, dtype=torch.bool).scatter_(1, others.topk(k, dim=1).indices, True)


def _samples(a: Array, b: Array, k: int) -> tuple[Float[Tensor, "sample d"], Float[Tensor, "sample other"]]:
    x, y = as_double(a, "representations", ("sample", "d")), as_double(b, "representations", ("sample", "d"))
    check_same_rows(x, y, "both representations")
    if len(x) <= max(k, 3):
        raise InputError(
            expected=f"more than {max(k, 3)} samples for {k} neighbours",
            found=str(len(x)),
            fix="pass more samples, or a smaller k",
        )
    return x, y
