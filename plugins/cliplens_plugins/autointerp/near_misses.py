"""Near misses for the fuzzing test: top samples of the latents with the nearest decoder rows.

delphi marks the wrong tokens of a right sample. A latent of a pooled embedding has no tokens, so a near miss here is a
whole sample: a top sample of a neighbouring latent that is none of the latent's own. Ours.
"""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from cliplens.arrays import nearest_rows


def neighbours(
    decoder: Float[Tensor, "d_sae d_in"], alive: np.ndarray, count: int = 5
) -> Int[np.ndarray, "d_sae near"]:
    """Return the living latents whose decoder rows have the highest cosine with each living latent's, nearest first.

    A latent is never its own neighbour. The rows of dead latents are -1. There are fewer than `count` columns where
    fewer other latents live.
    """
    living = np.flatnonzero(alive)
    near, _ = nearest_rows(decoder[torch.from_numpy(living)], count)
    found = np.full((len(decoder), near.shape[1]), -1, dtype=np.int64)
    found[living] = living[near]
    return found


def near_misses(
    at: Int[np.ndarray, "d_sae top"], latents: Int[np.ndarray, " latent"], near: Int[np.ndarray, "d_sae near"]
) -> Int[np.ndarray, "latent miss"]:
    """Return, for some latents, the top samples of their neighbours that are none of their own top samples.

    Each sample stands once in a row. Rows are in ascending order; -1 fills the end.

    Args:
        at: indices of each latent's top samples, -1 where there is none.
        latents: the latents asked for.
        near: each latent's neighbours.
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
