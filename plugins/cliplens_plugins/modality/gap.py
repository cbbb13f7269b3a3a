"""The modality gap (Liang et al., arXiv 2203.02053): how far apart image and text embeddings lie, with and without the
latents that fire in one modality only.

| figure | what it is | source |
|---|---|---|
| `centroid` | distance of the two means of unit-norm embeddings | arXiv 2203.02053 |
| `separable` | AUROC of the projection on the difference of means: .5 = one cloud, 1 = two | ours |
| `energy` | 2 E|x-y| - E|x-x'| - E|y-y'|, the energy distance of the two clouds | Szekely and Rizzo 2013 |
"""

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cliplens.arrays import as_double
from cliplens.errors import InputError
from cliplens.statistics import auroc


def modality_gap(image: Tensor | np.ndarray, text: Tensor | np.ndarray) -> dict[str, float]:
    """The gap between two sets of embeddings, each normalised to length 1 first.

    Args:
        image: [row, d], torch or numpy.
        text: [row, d]; the rows need not be pairs.

    Returns:
        `centroid` in [0, 2], `separable` in [.5, 1], `energy` >= 0.

    Raises:
        InputError: the widths differ, or a side is empty.
    """
    sides = [torch.nn.functional.normalize(as_double(x, "embeddings", ("row", "d")), dim=1) for x in (image, text)]
    if sides[0].shape[1] != sides[1].shape[1] or not min(len(s) for s in sides):
        raise InputError(
            expected="embeddings of both modalities, of one width",
            found=" and ".join(str(tuple(s.shape)) for s in sides),
            fix="read both at the shared embedding",
        )
    x, y = sides
    apart = x.mean(0) - y.mean(0)
    along = torch.cat([x, y]) @ apart
    scores = along.cpu().numpy()
    separable = auroc(scores[: len(x)], scores[len(x) :])
    energy = 2 * torch.cdist(x, y).mean() - torch.cdist(x, x).mean() - torch.cdist(y, y).mean()
    return {
        "centroid": float(apart.norm()),
        "separable": max(separable, 1 - separable),
        "energy": max(0.0, float(energy)),
    }


def without_latents(
    acts: Float[Tensor, "row d_in"],
    codes: Float[Tensor, "row d_sae"],
    decoder: Float[Tensor, "d_sae d_in"],
    removed: Bool[np.ndarray, " d_sae"],
) -> Float[Tensor, "row d_in"]:
    """Activations with what the removed latents wrote taken out; what the dictionary does not explain stays."""
    gone = torch.as_tensor(removed, device=codes.device)
    return acts - codes[:, gone].to(acts.dtype) @ decoder[gone].to(acts.dtype)
