"""Directions to compare a dictionary with: a dose of a latent ought to beat these, and often does not."""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def difference_of_means(
    acts: Float[Tensor, "row d_in"], target: Bool[Tensor, " row"], own: Bool[Tensor, " row"] | None = None
) -> Float[Tensor, " d_in"]:
    """Mean of the rows with the target less the mean of the rows with what is to be replaced (all others when None).

    With `own` this is the centroid swap, the strong baseline of AxBench (2501.17148).
    """
    rest = ~target if own is None else own
    return acts[target].mean(0) - acts[rest].mean(0)


def random_direction(like: Float[Tensor, "*at d_in"], seed: int) -> Float[Tensor, "*at d_in"]:
    """One direction drawn at random, at every row of `like` as long as that row."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(like.shape[-1], generator=generator, dtype=torch.float64)
    unit = (drawn / drawn.norm()).to(like)
    return like.norm(dim=-1, keepdim=True) * unit


def centroids(
    acts: Float[Tensor, "row d_in"], groups: Mapping[int, Bool[Tensor, " row"]]
) -> dict[int, Float[Tensor, " d_in"]]:
    """The mean of each group of rows that has any."""
    return {group: acts[rows].mean(0) for group, rows in groups.items() if bool(rows.any())}
