"""k-sparse probing: measure how well k latents predict a label. Gurnee et al., arXiv 2305.01610.

The k latents are those whose class means differ most on the training rows (as in sae-probes, Kantamneni et al., arXiv
2502.16681). A logistic regression on them is fitted on the same rows, and scored by AUROC on rows of other pictures.
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
"""Share of the pictures to test on."""
_SEED = 71


@dataclass(frozen=True)
class Probe:
    """The result of a probe. All figures are AUROCs on test rows, in [0, 1]; chance gives 0.5."""

    k: int
    """Number of latents that the probe reads."""
    latents: tuple[int, ...]
    """These latents, the one with the largest difference of class means first."""
    auroc: float
    low: float
    high: float
    """Limits of the 95 % interval, from the numbers of test pictures with and without the label."""
    permuted: float
    """Control: fitted on labels that were permuted among the training pictures."""
    random: float
    """Control: k random latents among those that fire; mean over ten draws."""


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
        codes: [row, latent], torch or numpy. Pass activations and k = d to get a dense probe for comparison.
        labels: whether each row has the attribute.
        pictures: the picture of each row. All rows of a picture are training rows, or all are test rows.
        ks: numbers of latents; a number above that of all latents means all.
        seed: seed of the split and of the controls.

    Returns:
        One `Probe` per k. Figures are nan if the training or the test rows contain only one class.

    Raises:
        InputError: the numbers of rows differ.
        NonFiniteError: the codes contain nan or inf.
    """
    rows = as_double(codes, "codes", ("row", "latent")).cpu().numpy()
    has = np.asarray(labels, dtype=bool)
    check_same_rows(torch.as_tensor(has), torch.as_tensor(rows), "labels and codes")
    if len(pictures) != len(rows):
        raise InputError(
            expected=f"a picture for each of {len(rows)} rows", found=str(len(pictures)), fix="pass one picture per row"
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
    """Return the number of each row's picture, and a mask of the test rows. Rows of one picture are never separated.

    The choice depends only on picture and seed, so it does not change when rows are added.
    """
    names = [str(p) for p in pictures]
    _, number = np.unique(names, return_inverse=True)
    # The held-out pairs of a run were chosen with seed 0; with that seed, they would all become training or test rows.
    return number.astype(np.int64), held_out(pair_keys(names), share, _SEED + seed)


def ranked(codes: Float[np.ndarray, "row latent"], labels: Bool[np.ndarray, " row"]) -> Int64[np.ndarray, " latent"]:
    """Return the latents in order of the difference of their class means, largest first; ties by number."""
    return np.argsort(-np.abs(codes[labels].mean(0) - codes[~labels].mean(0)), kind="stable")


def _fitted(
    rows: Float[np.ndarray, "row latent"],
    has: Bool[np.ndarray, " row"],
    told: Bool[np.ndarray, " row"],
    in_test: Bool[np.ndarray, " row"],
    k: int,
) -> tuple[float, Int64[np.ndarray, " k"]]:
    """Return the test AUROC of a probe fitted on the training rows with the labels `told`, and its latents."""
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
    """Return labels permuted among training pictures. A picture gets the label of the first row of another."""
    told = has.copy()
    names, first, place = np.unique(picture[training], return_index=True, return_inverse=True)
    if len(names):
        told[training] = has[training][first][rng.permutation(len(names))][place]
    return told
