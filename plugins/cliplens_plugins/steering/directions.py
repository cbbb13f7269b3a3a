"""Compute directions to compare with latents: difference of means, centroids, random directions."""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def difference_of_means(
    acts: Float[Tensor, "row d_in"], target: Bool[Tensor, " row"], own: Bool[Tensor, " row"] | None = None
) -> Float[Tensor, " d_in"]:
    """Return the mean of the `target` rows minus the mean of the `own` rows (of all other rows if `own` is None).

    With `own` this is the centroid swap, the strong baseline of AxBench (arXiv 2501.17148).
    """
    rest = ~target if own is None else own
    return acts[target].mean(0) - acts[rest].mean(0)


def random_direction(like: Float[Tensor, "*at d_in"], seed: int) -> Float[Tensor, "*at d_in"]:
    """Return one random direction, scaled to the norm of each row of `like`."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(like.shape[-1], generator=generator, dtype=torch.float64)
    unit = (drawn / drawn.norm()).to(like)
    return like.norm(dim=-1, keepdim=True) * unit


def centroids(
    acts: Float[Tensor, "row d_in"], groups: Mapping[int, Bool[Tensor, " row"]]
) -> dict[int, Float[Tensor, " d_in"]]:
    """Return the mean of each group that has rows."""
    return {group: acts[rows].mean(0) for group, rows in groups.items() if bool(rows.any())}
