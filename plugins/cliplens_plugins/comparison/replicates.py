"""Compute figures under many weightings of the rows at once: column 0 of the weights is 1, the others are a bootstrap.

Every function takes the codes of one dictionary and weights [row, replicate] and returns the figure per replicate. The
weight of a row is that of its picture, so all captions of a picture are drawn together (Poisson bootstrap).
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from scipy.sparse import csr_array

from cliplens.records import Batch, SparseCodes
from cliplens.sites import MODALITIES, Modality

Weights = Float[np.ndarray, "row replicate"]
LOW, HIGH = 0.2, 0.8
"""Fixed cuts of the Modality Dominance Score."""


def l0(batch: Batch, weights: Weights) -> Float[np.ndarray, " replicate"]:
    """Return the mean number of latents that fire per row, over both modalities."""
    held = [codes for m in MODALITIES if (codes := batch.codes.of(m)) is not None]
    firing = sum(np.bincount(_numpy(codes.rows), minlength=codes.n_rows) @ weights for codes in held)
    with np.errstate(invalid="ignore"):  # a replicate may have drawn none of these pictures
        result: np.ndarray = firing / (len(held) * weights.sum(0))
    return result


def explained_variance(batch: Batch, weights: Weights) -> Float[np.ndarray, " replicate"]:
    """Return 1 - squared error / variance about the pooled mean of both modalities; nan where the data are constant."""
    n, error, square = (np.zeros(weights.shape[1]) for _ in range(3))
    total = np.zeros(())
    for modality in MODALITIES:
        acts, back = batch.acts.of(modality), batch.reconstruction.of(modality)
        if acts is None or back is None:
            continue
        x, e = (_numpy(v.double()) for v in (acts, acts.double() - back.double()))
        n = n + weights.sum(0)
        error = error + (e * e).sum(1) @ weights
        square = square + (x * x).sum(1) @ weights
        total = total + x.T @ weights
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = square - (total * total).sum(0) / n
        result: np.ndarray = np.where(variance > 1e-11 * square, 1 - error / variance, np.nan)
    return result


def monosemanticity(batch: Batch, modality: Modality, weights: Weights) -> Float[np.ndarray, " replicate"]:
    """Return the MonoSemanticity score, mean over latents with at least two samples above their minimum.

    Each picture, or caption text, counts once. In a replicate, a sample that was drawn several times is not paired with
    itself.
    """
    codes, judged = batch.codes.of(modality), batch.judged["judge"].of(modality)
    assert codes is not None
    assert judged is not None
    units = batch.codes.known_units
    first = units.first_image if modality == "image" else units.first_caption
    acts = _shifted(codes.take(first))
    near = _numpy(judged.double())[first]
    kept = weights[first]
    means = np.full(weights.shape[1], np.nan)
    for n in range(weights.shape[1]):
        drawn = kept[:, n]
        weighted = (acts.T * drawn).tocsr() if acts.nnz else acts.T.tocsr()
        scores = _scores(weighted, near)
        means[n] = np.nanmean(scores) if not np.isnan(scores).all() else np.nan
    return means


def _scores(weighted: "csr_array[Any]", near: Float[np.ndarray, "row d_judge"]) -> Float[np.ndarray, " latent"]:
    """Return (|sum w a e|^2 - sum (w a)^2) / ((sum w a)^2 - sum (w a)^2); nan where fewer than two samples count."""
    along = np.asarray(weighted @ near)
    square = np.asarray(weighted.multiply(weighted).sum(1)).ravel()
    total = np.asarray(weighted.sum(1)).ravel()
    several = np.diff(weighted.indptr) - _zeros(weighted) >= 2
    with np.errstate(divide="ignore", invalid="ignore"):
        result: np.ndarray = np.where(several, ((along**2).sum(1) - square) / (total**2 - square), np.nan)
    return result


def _zeros(matrix: "csr_array[Any]") -> Int[np.ndarray, " row"]:
    """Return the number of stored zeros in each row, such as samples that a replicate did not draw."""
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    zeros: np.ndarray = np.bincount(rows[matrix.data == 0], minlength=matrix.shape[0])
    return zeros


def _shifted(codes: SparseCodes) -> "csr_array[Any]":
    """Return the codes [row, latent] with each latent's minimum moved to 0, as the score's min-max scaling does."""
    matrix = _sparse(codes, _numpy(codes.values.double()))
    if not codes.n_rows:
        return matrix
    low = matrix.min(axis=0).toarray().ravel()
    if not low.any():
        return matrix
    dense = matrix.toarray() - low
    return csr_array(dense)


def modality_shares(
    batch: Batch, weights: Weights
) -> tuple[Float[np.ndarray, "latent replicate"], Float[np.ndarray, " replicate"]]:
    """Return the Modality Dominance Score of each latent, and the share of living latents beyond the fixed cuts."""
    joint = batch.codes.joint
    image, text = (_numpy(v.double().abs()) for v in (joint.image, joint.text))
    place = (_numpy(joint.latents), _numpy(joint.rows))
    shape = (batch.codes.d_sae, len(batch.ids))
    ratio = csr_array((image / (image + text), place), shape=shape)
    fires = csr_array((np.ones(len(image)), place), shape=shape)
    with np.errstate(divide="ignore", invalid="ignore"):
        scores = np.asarray(ratio @ weights) / np.asarray(fires @ weights)
    living = (~np.isnan(scores)).sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return scores, ((scores < LOW) | (scores > HIGH)).sum(0) / living


def recovery(
    scores: Float[np.ndarray, "latent replicate"], truth: Shaped[np.ndarray, " latent"]
) -> tuple[Float[np.ndarray, " replicate"], float]:
    """Return the share of latents of a known true class that the fixed cuts put into it, and the share of the most
    frequent true class; nan where no latent has one."""
    known = truth != ""
    if not known.any():
        return np.full(scores.shape[1], np.nan), float("nan")
    said = np.select([scores < LOW, scores > HIGH, ~np.isnan(scores)], ["TextD", "ImgD", "CrossD"], default="dead")
    right = (said[known] == truth[known][:, None]).mean(0)
    return right, float(np.unique(truth[known], return_counts=True)[1].max() / known.sum())


def _sparse(codes: SparseCodes, values: np.ndarray) -> "csr_array[Any]":
    return csr_array((values, (_numpy(codes.rows), _numpy(codes.latents))), shape=(codes.n_rows, codes.d_sae))


def _numpy(values: torch.Tensor) -> np.ndarray:
    held: np.ndarray = values.detach().cpu().numpy()
    return held
