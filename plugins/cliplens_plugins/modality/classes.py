"""Turn scores into classes: `ImgD`, `TextD`, `CrossD`, and `dead` for latents that never fire (nan).

Two rules are reported side by side. The paper's rule cuts at one standard deviation from the mean of the living
latents. It finds dominant latents in any model, and none if half of the scores are 0 and half are 1. Fixed cuts avoid
both faults, but do not adapt to the dictionary.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped
from torch import Tensor

from cliplens.errors import InputError

CLASSES = ("ImgD", "TextD", "CrossD", "dead")
DECIDED = (*CLASSES[:3], "undecided", "dead")
"""Classes by significance. `undecided`: the evidence does not decide between the other classes."""
LOW, HIGH = 0.2, 0.8
_ROUNDING = 1e-12
"""Scores this near to mu ± tau sigma count as on the boundary (CrossD), because mu and sigma are rounded."""


def classify(scores: np.ndarray | Tensor | Sequence[Any], tau: float | int = 1.0) -> np.ndarray:
    """Classify by the paper's rule: above mu + tau sigma `ImgD`, below mu - tau sigma `TextD`, else `CrossD`.

    mu and sigma are the mean and the population standard deviation over living latents. Scores on a boundary are
    `CrossD`; nan is `dead`.

    Args:
        scores: [latent], modality scores, nan = never fires.
        tau: number of standard deviations from the mean, at least 0.

    Returns:
        [latent], numpy strings.

    Raises:
        InputError: scores are not one-dimensional, or tau is negative.

    Source: Yan et al., arXiv 2502.14888 (reimplementation).

    >>> classify([0.0, 0.5, 0.5, 0.5, 1.0]).tolist()
    ['TextD', 'CrossD', 'CrossD', 'CrossD', 'ImgD']
    """
    if not tau >= 0:
        raise InputError(
            expected="tau of 0 or more",
            found=str(tau),
            fix="pass the number of standard deviations, 1.0 in the paper",
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
    """Classify by fixed cuts: below `low` `TextD`, above `high` `ImgD`, else `CrossD`; nan is `dead`.

    Scores on a cut are `CrossD`. They are compared in their own precision, so that 0.8 in float32 is not above 0.8.

    Args:
        scores: [latent], modality scores, nan = never fires.
        low: scores below this cut are `TextD`.
        high: scores above this cut are `ImgD`.

    Returns:
        [latent], numpy strings.

    Raises:
        InputError: scores are not one-dimensional, or `low` is above `high`.

    Source: ours.

    >>> classify_fixed([0.1, 0.5, 0.9, float("nan")]).tolist()
    ['TextD', 'CrossD', 'ImgD', 'dead']
    """
    if not low <= high:
        raise InputError(expected="low <= high", found=f"low {low} and high {high}", fix="swap the two cuts")
    return _cut(_scores(scores), low, high)


def class_counts(classes: Shaped[np.ndarray, " latent"]) -> dict[str, int]:
    """Return the number of latents in each class; `undecided` is left out if there are none.

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
            fix="pass scores of shape [latent]",
        )
    return values if np.issubdtype(values.dtype, np.floating) else values.astype(np.float64)


def _cut(values: Float[np.ndarray, " latent"], low: float | int, high: float | int) -> np.ndarray:
    cuts = [np.isnan(values), values < values.dtype.type(low), values > values.dtype.type(high)]
    return np.select(cuts, ["dead", "TextD", "ImgD"], default="CrossD").astype("<U6")
