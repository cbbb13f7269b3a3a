"""Published ways to remove an attribute from embeddings by a linear map."""

import warnings
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cliplens.errors import MissingExtraError

Projection = Float[Tensor, "d d"]


def orth_proj(prompts: Float[Tensor, "prompt d"]) -> Projection:
    """Return the projection that removes the span of attribute prompts: P0 = 1 - V V', V from their uncentred SVD.

    Directions with singular values below 1e-6 of the largest are kept.

    Source: Chuang et al., arXiv 2302.00070 (their code).

    >>> orth_proj(torch.tensor([[1.0, 0.0]])).tolist()
    [[0.0, 0.0], [0.0, 1.0]]
    """
    _, size, v = torch.linalg.svd(prompts.double(), full_matrices=False)
    v = v[size > 1e-6 * size.max()]
    return torch.eye(prompts.shape[1], dtype=torch.float64) - v.T @ v


def orth_cali(
    prompts: Float[Tensor, "prompt d"], pairs: Float[Tensor, "pair 2 d"], *, strength: float = 1000.0
) -> Projection:
    """Return Orth-Cali, P0 (1 + strength M)^-1, where M is the mean of (t_i - t_j)(t_i - t_j)' over pairs of prompts.

    Args:
        prompts: attribute prompts, for P0.
        pairs: embeddings of prompts that differ only in the attribute.
        strength: lambda, 1000 in the source.

    Source: Chuang et al., arXiv 2302.00070 (their code).
    """
    apart = (pairs[:, 0] - pairs[:, 1]).double()
    spread = apart.T @ apart / len(apart)
    eye = torch.eye(spread.shape[0], dtype=torch.float64)
    return orth_proj(prompts) @ torch.linalg.inv(eye + strength * spread)


def off_directions(directions: Float[Tensor, "direction d"], strength: float = 1.0) -> Projection:
    """Return the map that removes directions: 1 - strength * (projection onto their span).

    >>> off_directions(torch.tensor([[2.0, 0.0]]), 0.5).tolist()
    [[0.5, 0.0], [0.0, 1.0]]
    """
    eye = torch.eye(directions.shape[1], dtype=torch.float64)
    return eye - strength * (eye - orth_proj(directions))


def leace(rows: Float[Tensor, "row d"], labels: Int[Tensor, " row"]) -> Any:
    """Return LEACE's map of rows. After it, no linear classifier can read the labels from the rows it was fitted on.

    Raises:
        MissingExtraError: the package `concept-erasure` is not installed.

    Source: Belrose et al., arXiv 2306.03819; their package.
    """
    try:
        with warnings.catch_warnings():  # the package uses torch.jit.script, which is deprecated
            warnings.simplefilter("ignore", FutureWarning)
            from concept_erasure import LeaceEraser
    except ImportError as error:
        raise MissingExtraError(
            expected="the package concept-erasure for LEACE", found="none", fix="pip install 'cliplens[bias]'"
        ) from error
    one_hot = torch.nn.functional.one_hot(labels.long()).double()
    return LeaceEraser.fit(rows.double(), one_hot)
