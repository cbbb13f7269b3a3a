"""k-sparse probing: how well do k latents tell a labelled attribute? Gurnee et al., arXiv 2305.01610.

The k latents are those whose class means differ most on the training rows (as in sae-probes, Kantamneni et al., arXiv
2502.16681); a logistic regression on them is fitted on the same rows and scored by AUROC on rows of other pictures.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from cliplens.arrays import as_double, check_same_rows
from cliplens.errors import InputError
from cliplens.keys import held_out, pair_keys
from cliplens.statistics import auroc, auroc_interval
from cliplens_plugins.probing.logistic import fit_logistic

TEST_SHARE = 0.3
_SEED = 71


@dataclass(frozen=True)
class Probe:
    """What a probe found. All figures are AUROCs on rows it was not fitted on, in [0, 1], 0.5 by chance."""

    k: int
    """Number of columns it reads."""
    latents: tuple[int, ...]
    auroc: float
    low: float
    high: float
    """95 % interval, from the numbers of test pictures with and without the label."""
    permuted: float
    """Control: the same with the labels of the training rows permuted among pictures."""
    random: float
    """Control: the same with k latents drawn among those that fire, mean over ten draws."""


def sparse_probe(
    codes: Float[Tensor, "row latent"] | Float[np.ndarray, "row latent"],
    labels: Sequence[bool] | Bool[np.ndarray, " label"],
    pictures: Sequence[Hashable],
    ks: Sequence[int] = (1, 16),
    *,
    seed: int = 0,
) -> list[Probe]:
    """Return a k-sparse probe for each k.

    Args:
        codes: [row, latent], torch or numpy; give raw activations and k = d for a dense probe to compare with.
        labels: whether each row has the attribute.
        pictures: the picture of each row: the rows of one picture are all in training or all in test.
        ks: numbers of latents; more than there are means all.
        seed: of the split and of the controls.

    Returns:
        A `Probe` per k. Figures are nan where training or test rows lack one of the classes.

    Raises:
        InputError: the numbers of rows differ.
        NonFiniteError: nan or inf among the codes.
    """
    rows = as_double(codes, "codes", ("row", "latent")).cpu().numpy()
    has = np.asarray(labels, dtype=bool)
    check_same_rows(torch.as_tensor(has), torch.as_tensor(rows), "labels and codes")
    if len(pictures) != len(rows):
        raise InputError(
            expected=f"a picture for each of {len(rows)} rows", found=str(len(pictures)), fix="give one per row"
        )
    picture, in_test = split(pictures, seed)
    rng = np.random.default_rng([_SEED, seed])
    shuffled = _permuted(has, picture, ~in_test, rng)
    alive = np.flatnonzero((rows[~in_test] != 0).any(0)) if (~in_test).any() else np.zeros(0, np.int64)
    counts = [len(np.unique(picture[in_test & (has == value)])) for value in (True, False)]
    found = []
    for k in (min(k, rows.shape[1]) for k in ks):
        score, chosen = _fitted(rows, has, has, in_test, k)
        control, _ = _fitted(rows, has, shuffled, in_test, k)
        draws = [rng.choice(alive, min(k, len(alive)), replace=False) for _ in range(10)] if len(alive) else []
        drawn = [_scored(rows, has, has, in_test, picked) for picked in draws]
        low, high = auroc_interval(score, *counts)
        random = float(np.mean(drawn)) if drawn else float("nan")
        found.append(Probe(k, tuple(chosen.tolist()), score, low, high, control, random))
    return found


def split(
    pictures: Sequence[Hashable], seed: int = 0, share: float = TEST_SHARE
) -> tuple[Int64[np.ndarray, " row"], Bool[np.ndarray, " row"]]:
    """Return a number for each row's picture, and which rows are for testing; all rows of a picture are on one side.

    The side depends on the picture and the seed alone, so more rows do not move those that were there.
    """
    names = [str(p) for p in pictures]
    _, number = np.unique(names, return_inverse=True)
    # A run's own held-out pairs are chosen by seed 0: with that seed they would all fall on one side here.
    return number.astype(np.int64), held_out(pair_keys(names), share, _SEED + seed)


def ranked(codes: Float[np.ndarray, "row latent"], labels: Bool[np.ndarray, " row"]) -> Int64[np.ndarray, " latent"]:
    """Return the latents by the difference of their class means, largest first, ties by number."""
    return np.argsort(-np.abs(codes[labels].mean(0) - codes[~labels].mean(0)), kind="stable")


def _fitted(
    rows: Float[np.ndarray, "row latent"],
    has: Bool[np.ndarray, " row"],
    told: Bool[np.ndarray, " row"],
    in_test: Bool[np.ndarray, " row"],
    k: int,
) -> tuple[float, Int64[np.ndarray, " k"]]:
    """Return the AUROC on the test rows of a probe that is told `told` about the training rows, and its latents."""
    if len(set(told[~in_test])) < 2:
        return float("nan"), np.zeros(0, np.int64)
    chosen = ranked(rows[~in_test], told[~in_test])[:k]
    return _scored(rows, has, told, in_test, chosen), chosen


def _scored(
    rows: Float[np.ndarray, "row latent"],
    has: Bool[np.ndarray, " row"],
    told: Bool[np.ndarray, " row"],
    in_test: Bool[np.ndarray, " row"],
    chosen: Int64[np.ndarray, " k"],
) -> float:
    if len(set(told[~in_test])) < 2:
        return float("nan")
    probe = fit_logistic(rows[np.ix_(~in_test, chosen)], told[~in_test])
    scores = probe.score(rows[np.ix_(in_test, chosen)])
    return auroc(scores[has[in_test]], scores[~has[in_test]])


def _permuted(
    has: Bool[np.ndarray, " row"],
    picture: Int64[np.ndarray, " row"],
    training: Bool[np.ndarray, " row"],
    rng: np.random.Generator,
) -> Bool[np.ndarray, " row"]:
    """Return labels permuted among training pictures; each picture takes the label of another's first row."""
    told = has.copy()
    names, first, place = np.unique(picture[training], return_index=True, return_inverse=True)
    if len(names):
        told[training] = has[training][first][rng.permutation(len(names))][place]
    return told
