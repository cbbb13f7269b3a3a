"""Measure the correlation with words that a latent reaches by chance, when captions are shuffled."""

from collections.abc import Hashable, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from cliplens.records import SparseCodes

SHUFFLES = 100
_SEED = 41


def reached_by_chance(
    codes: SparseCodes,
    said: Bool[np.ndarray, " row"],
    shuffles: int = SHUFFLES,
    units: Sequence[Hashable] | None = None,
) -> float:
    """Return the correlation that the best latent exceeds in 5 % of shuffles of the captions among the pictures.

    With few pairs, some of many latents goes with any word, the more so if its codes are few and large.

    Args:
        codes: codes of the rows.
        said: whether the caption of each row contains the words.
        shuffles: number of shuffles.
        units: equal for rows that stay together in a shuffle, such as those of one picture, whose codes are equal and
            whose captions speak of the same things; None: every row by itself.
    """
    rows, latents = codes.rows.cpu().numpy(), codes.latents.cpu().numpy()
    values = codes.values.double().cpu().numpy()
    n = codes.n_rows

    def summed(of: Float[np.ndarray, " firing"]) -> Float[np.ndarray, " d_sae"]:
        return np.bincount(latents, of, codes.d_sae).astype(np.float64)  # whole numbers where nothing fires

    mean = summed(values) / n
    spread = np.sqrt(np.maximum(summed(values**2) / n - mean**2, 0)) * said.std()
    known = spread > 0
    if not known.any():
        return 0.0
    rng = np.random.default_rng(_SEED)
    unit = _numbered(range(n) if units is None else units)
    by_unit, best = np.argsort(unit, kind="stable"), []
    for _ in range(shuffles):
        label = np.empty(n)
        label[by_unit] = said[_shuffled(unit, rng)]
        covariance = summed(values * label[rows]) / n - mean * label.mean()
        best.append((covariance[known] / spread[known]).max())
    return float(np.quantile(best, 0.95))


def _numbered(units: Sequence[Hashable]) -> Int[np.ndarray, " row"]:
    """Return the number of the unit of each row, in order of first appearance."""
    number: dict[Hashable, int] = {}
    return np.array([number.setdefault(unit, len(number)) for unit in units], dtype=np.int64)


def _shuffled(unit: Int[np.ndarray, " row"], rng: np.random.Generator) -> Int[np.ndarray, " row"]:
    """Return the rows with their units in random order, the rows of a unit one after the other."""
    order = rng.permutation(int(unit.max()) + 1)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return np.argsort(place[unit], kind="stable")
