"""Choose near misses for the fuzzing test: top samples of latents with similar decoder rows.

Our deviation from delphi, which highlights wrong tokens of a top sample: a latent of a pooled embedding has no tokens,
so a near miss is a whole sample, namely a top sample of a neighbouring latent that is no top sample of the latent.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cliplens.arrays import nearest_rows
from cliplens.keys import hashed

MOST = 8192
"""Maximum number of latents that are considered as neighbours."""


def neighbours(
    decoder: Float[Tensor, "d_sae d_in"], alive: Bool[np.ndarray, " d_sae"], count: int = 5
) -> Int[np.ndarray, "d_sae near"]:
    """Return, for each living latent, the living latents with the most similar decoder rows by cosine, nearest first.

    A latent is not its own neighbour. Rows of dead latents are -1. If fewer than `count` other latents are alive, there
    are fewer columns. Of more than `MOST` living latents, only `MOST` can be neighbours, chosen by a hash of their
    index, so that the cost grows in proportion to the number of latents.
    """
    living = np.flatnonzero(alive)
    among = None
    if len(living) > MOST:
        among = np.argsort(hashed(living.astype(np.uint64), MOST), kind="stable")[:MOST]
    near, _ = nearest_rows(decoder[torch.from_numpy(living)], count, among=among)
    found = np.full((len(decoder), near.shape[1]), -1, dtype=np.int64)
    found[living] = living[near]
    return found


def near_misses(
    at: Int[np.ndarray, "d_sae top"], latents: Int[np.ndarray, " latent"], near: Int[np.ndarray, "d_sae near"]
) -> Int[np.ndarray, "latent miss"]:
    """Return, for the given latents, the top samples of their neighbours that are not their own top samples.

    Each row holds distinct sample indices in ascending order, padded with -1.

    Args:
        at: indices of each latent's top samples, padded with -1.
        latents: indices of the latents to return.
        near: indices of each latent's neighbours.
    """
    theirs = np.where(near[latents, :, None] >= 0, at[near[latents]], -1).reshape(len(latents), -1)
    theirs = np.sort(theirs, axis=1)
    theirs[:, 1:][theirs[:, 1:] == theirs[:, :-1]] = -1
    size = int(at.max(initial=0)) + 1
    row = np.arange(len(latents))[:, None] * size
    theirs[np.isin(row + theirs, (row + at[latents])[at[latents] >= 0])] = -1
    end = np.iinfo(np.int64).max
    theirs = np.sort(np.where(theirs < 0, end, theirs), axis=1)
    width = int((theirs != end).sum(axis=1).max(initial=0))
    return np.where(theirs == end, -1, theirs)[:, :width]
