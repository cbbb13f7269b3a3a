"""Measure the modality gap (Liang et al., arXiv 2203.02053), with and without the latents of one modality.

| figure | definition | source |
|---|---|---|
| `centroid` | distance of the two means of unit-norm embeddings | arXiv 2203.02053 |
| `separable` | AUROC of the projection on the difference of means: about .5 = one cloud, 1 = two | ours |
| `energy` | 2 E|x-y| - E|x-x'| - E|y-y'|, the energy distance of the two clouds | Szekely and Rizzo 2013 |

`separable` is cross-fitted: the means come from four fifths of the rows, the AUROC from the other fifth. On the rows
from which the means are computed, the projection separates even two samples of the same distribution.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from cliplens.arrays import as_double
from cliplens.errors import InputError
from cliplens.statistics import auroc

FOLDS = 5


def modality_gap(
    image: Tensor | np.ndarray, text: Tensor | np.ndarray, *, units: np.ndarray | None = None
) -> dict[str, float]:
    """Return the gap between two sets of embeddings, which are normalised to length 1 first.

    Args:
        image: [row, d], torch or numpy.
        text: [row, d]; the rows need not be pairs.
        units: for rows that are pairs, a label of the picture of each row; rows with the same label stay in one fold.

    Returns:
        `centroid` in [0, 2], `separable` in [0, 1], `energy` >= 0. `separable` is nan with fewer than two rows of
        either modality.

    Raises:
        InputError: the widths differ, or there are no images or no captions.
    """
    sides = [torch.nn.functional.normalize(as_double(x, "embeddings", ("row", "d"))) for x in (image, text)]
    if sides[0].shape[1] != sides[1].shape[1] or not min(len(s) for s in sides):
        raise InputError(
            expected="image and text embeddings of equal width",
            found="shapes " + " and ".join(str(tuple(s.shape)) for s in sides),
            fix="use the final embeddings, which both towers share",
        )
    x, y = sides
    energy = 2 * torch.cdist(x, y).mean() - torch.cdist(x, x).mean() - torch.cdist(y, y).mean()
    return {
        "centroid": float((x.mean(0) - y.mean(0)).norm()),
        "separable": _separable(x, y, _folds(len(x), units), _folds(len(y), units)),
        "energy": max(0.0, float(energy)),
    }


def _folds(n: int, units: np.ndarray | None) -> Int64[np.ndarray, " row"]:
    """Return the fold of every row; rows of one unit are in the same fold."""
    number = np.arange(n) if units is None else np.unique(units, return_inverse=True)[1]
    folds: np.ndarray = number % FOLDS
    return folds


def _separable(x: Float[Tensor, "row d"], y: Float[Tensor, "other d"], of_x: np.ndarray, of_y: np.ndarray) -> float:
    """Return the mean AUROC over folds; the direction for each fold comes from the rows of the other folds."""
    found = []
    for fold in range(FOLDS):
        in_x, in_y = torch.as_tensor(of_x == fold), torch.as_tensor(of_y == fold)
        if in_x.any() and in_y.any() and not in_x.all() and not in_y.all():
            along = x[~in_x].mean(0) - y[~in_y].mean(0)
            found.append(auroc((x[in_x] @ along).cpu().numpy(), (y[in_y] @ along).cpu().numpy()))
    return float(np.mean(found)) if found else float("nan")


def without_latents(
    acts: Float[Tensor, "row d_in"],
    codes: Float[Tensor, "row d_sae"],
    decoder: Float[Tensor, "d_sae d_in"],
    removed: Bool[np.ndarray, " d_sae"],
) -> Float[Tensor, "row d_in"]:
    """Subtract the contributions (code times decoder row) of the removed latents; the reconstruction error is kept."""
    gone = torch.as_tensor(removed, device=codes.device)
    return acts - codes[:, gone].to(acts.dtype) @ decoder[gone].to(acts.dtype)
