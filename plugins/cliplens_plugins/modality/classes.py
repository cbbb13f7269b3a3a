"""From scores to classes: `ImgD`, `TextD`, `CrossD`, and `dead` for latents that never fire (nan).

Two rules, always reported side by side. The paper's, mean and standard deviation of the living latents, always finds
some dominant latents, whatever the model, and none at all where half of the scores are 0 and half are 1. The fixed cuts
have neither fault, but know nothing of the dictionary at hand.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from cliplens.errors import InputError

CLASSES = ("ImgD", "TextD", "CrossD", "dead")
DECIDED = (*CLASSES[:3], "undecided", "dead")
"""Classes where significance is asked for: `undecided` is neither one class nor another."""
LOW, HIGH = 0.2, 0.8
_ROUNDING = 1e-12
"""Mean and deviation are rounded sums: a score this near to mu ± tau sigma lies on the boundary, which is CrossD's."""


def classify(scores: np.ndarray | Tensor | Sequence[Any], tau: float | int = 1.0) -> np.ndarray:
    """The paper's classes: above mu + tau sigma `ImgD`, below mu - tau sigma `TextD`, else `CrossD`; nan is `dead`.

    mu and sigma: mean and population standard deviation over living latents. Boundaries belong to CrossD.

    Args:
        scores: [latent], modality scores, nan = never fires.
        tau: how many standard deviations from the mean; not negative.

    Returns:
        [latent], numpy strings.

    Raises:
        InputError: scores are not one-dimensional, or tau is negative.

    Source: Yan et al., arXiv 2502.14888 (reimplementation).
    """
    if not tau >= 0:
        raise InputError(
            expected="tau of 0 or more", found=str(tau), fix="give the number of standard deviations, 1.0 in the paper"
        )
    values = _scores(scores).astype(np.float64)
    living = values[~np.isnan(values)]
    if not len(living):
        return np.full(len(values), "dead", dtype="<U6")
    mu, sigma = living.mean(), living.std()
    return _cut(values, mu - tau * sigma - _ROUNDING, mu + tau * sigma + _ROUNDING)


def classify_fixed(
    scores: np.ndarray | Tensor | Sequence[Any], low: float | int = LOW, high: float | int = HIGH
) -> np.ndarray:
    """Classes by fixed cuts: below `low` `TextD`, above `high` `ImgD`, else `CrossD`; nan is `dead`.

    Boundaries belong to CrossD. Scores are compared in their own precision, so that 0.8 in float32 is not above 0.8.

    Args:
        scores: [latent], modality scores, nan = never fires.
        low: the cut below which captions dominate.
        high: the cut above which images dominate.

    Returns:
        [latent], numpy strings.

    Raises:
        InputError: scores are not one-dimensional, or `low` is above `high`.

    Source: ours.
    """
    if not low <= high:
        raise InputError(expected="a low cut not above the high one", found=f"{low} and {high}", fix="swap them")
    return _cut(_scores(scores), low, high)


def class_counts(classes: np.ndarray) -> dict[str, int]:
    """Return how many latents are of each class; `undecided` is counted where there are any.

    >>> class_counts(np.array(["ImgD", "dead", "ImgD"]))
    {'ImgD': 2, 'TextD': 0, 'CrossD': 0, 'dead': 1}
    """
    counted = Counter(classes.tolist())
    names = DECIDED if counted["undecided"] else CLASSES
    return {name: counted[name] for name in names}


def _scores(scores: np.ndarray | Tensor | Sequence[Any]) -> np.ndarray:
    values = scores.detach().cpu().numpy() if isinstance(scores, Tensor) else np.asarray(scores)
    if values.ndim != 1:
        raise InputError(
            expected="one score per latent",
            found=f"an array of shape {values.shape}",
            fix="give scores of shape [latent]",
        )
    return values if np.issubdtype(values.dtype, np.floating) else values.astype(np.float64)


def _cut(values: Float[np.ndarray, " latent"], low: float | int, high: float | int) -> np.ndarray:
    cuts = [np.isnan(values), values < values.dtype.type(low), values > values.dtype.type(high)]
    return np.select(cuts, ["dead", "TextD", "ImgD"], default="CrossD").astype("<U6")
