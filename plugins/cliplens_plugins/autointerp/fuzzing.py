"""Fuzzing: the name against near misses.

delphi marks the wrong tokens of a right sample. A latent of a pooled embedding has no tokens, so the near miss here is
a whole sample: a top sample of the latents whose decoder rows lie nearest, which is none of this latent's. Ours.
"""

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from cliplens.naming import auroc
from cliplens.records import Exemplars
from cliplens.sites import Modality
from cliplens_plugins.autointerp.space import array, top_of, unit
from cliplens_plugins.autointerp.views import View


def neighbours(
    decoder: Float[Tensor, "d_sae d_in"], alive: np.ndarray, count: int = 5
) -> Int[np.ndarray, "d_sae near"]:
    """The living latents with the nearest decoder rows (cosine), nearest first, never the latent itself."""
    rows = unit(array(decoder))
    near = rows @ rows.T
    near[:, ~alive] = -np.inf
    np.fill_diagonal(near, -np.inf)
    count = min(count, max(int(alive.sum()) - 1, 0))
    best = np.argpartition(-near, count - 1, axis=1)[:, :count] if count else np.empty((len(rows), 0), dtype=np.int64)
    return np.take_along_axis(best, np.argsort(-np.take_along_axis(near, best, axis=1), axis=1), axis=1)


def near_misses(exemplars: Exemplars, latent: int, near: Int[np.ndarray, " near"]) -> Int[np.ndarray, " miss"]:
    """Top samples of the neighbours that are no top sample of the latent."""
    theirs = [top_of(exemplars, int(k)) for k in near]
    found = np.unique(np.concatenate([np.empty(0, dtype=np.int64), *theirs]))
    return np.setdiff1d(found, top_of(exemplars, latent))


def fuzzing(
    view: View, name: str, modality: Modality, top: Int[np.ndarray, " top"], misses: Int[np.ndarray, " miss"]
) -> float:
    """AUROC of the name's match with top samples against near misses; nan without either."""
    rows = view.samples[modality].exemplars
    return auroc(view.match(name, rows[top]), view.match(name, rows[misses]))
