"""Compute the partial information decomposition of each latent about a binary target.

The information I(A, B; Y) in bits (Williams and Beer, arXiv 1004.2515) is split into redundancy, two unique parts and
synergy. A = the latent fires on the image, B = it fires on the caption, Y = the target (a label, or "the pair is
retrieved"):

    redundancy + unique_image = I(A; Y)        redundancy + unique_text = I(B; Y)        all four = I(A, B; Y)

| redundancy | definition | source |
|---|---|---|
| `i_min` | expected least specific information, sum_y p(y) min_S I(Y=y; S) | Williams and Beer, arXiv 1004.2515 |
| `mmi` | min(I(A; Y), I(B; Y)) | Barrett, Phys. Rev. E 91, 052802 (2015) |

Information estimated from counts is biased upwards, by (|S|-1)(|Y|-1) / (2 N ln 2) bits for a source S (Miller 1955;
Panzeri and Treves 1996). The bias is subtracted, and negative results are set to 0. The control shuffles the target.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from cliplens.errors import InputError, unknown_name
from cliplens.keys import hashed_uniform, pair_keys

REDUNDANCIES = ("i_min", "mmi")
PerLatent = np.ndarray | np.floating[Any]
"""One number per latent, or a scalar for the counts of a single latent."""


@dataclass(frozen=True)
class Atoms:
    """The four parts of I(A, B; Y) of each latent, in bits; each in [0, 1] up to estimation error."""

    redundancy: PerLatent
    unique_image: PerLatent
    unique_text: PerLatent
    synergy: PerLatent


def counts_of(
    image_fires: Bool[np.ndarray, "pair latent"],
    text_fires: Bool[np.ndarray, "pair latent"],
    target: Bool[np.ndarray, " pair"],
) -> Float[np.ndarray, "latent 2 2 2"]:
    """Count the pairs with each combination of (fires on the image, fires on the caption, target), for each latent."""
    cells = [
        [[(a & b & y[:, None]).sum(0) for y in (~target, target)] for b in (~text_fires, text_fires)]
        for a in (~image_fires, image_fires)
    ]
    return np.moveaxis(np.array(cells, dtype=np.float64), -1, 0)


def decompose(counts: np.ndarray, *, redundancy: str = "i_min", corrected: bool = True) -> Atoms:
    """Decompose the information in counts of (fires on the image, fires on the caption, target).

    Args:
        counts: [..., 2, 2, 2], not negative; with `corrected=False`, probabilities are accepted too.
        redundancy: definition of the redundancy, "i_min" or "mmi".
        corrected: subtract the estimation bias.

    Returns:
        Parts of shape [...], in bits; nan where all counts are 0.

    Raises:
        UnknownNameError: `redundancy` is not a known definition.
        InputError: the last axes are not 2, 2, 2.

    >>> xor = np.zeros((2, 2, 2))
    >>> xor[0, 0, 0] = xor[0, 1, 1] = xor[1, 0, 1] = xor[1, 1, 0] = 25
    >>> float(decompose(xor, corrected=False).synergy)
    1.0
    """
    if redundancy not in REDUNDANCIES:
        raise unknown_name("redundancy", redundancy, REDUNDANCIES)
    if counts.shape[-3:] != (2, 2, 2):
        raise InputError(
            expected="counts of shape [..., 2, 2, 2]",
            found=f"shape {counts.shape}",
            fix="compute the counts with counts_of",
        )
    n = counts.sum((-3, -2, -1))
    with np.errstate(invalid="ignore"):
        p = counts / n[..., None, None, None]
    image, text = p.sum(-2), p.sum(-3)
    both = p.reshape(*p.shape[:-3], 4, 2)
    of_image, of_text, of_both, specific = *(_information(s) for s in (image, text, both)), _i_min(image, text)
    if corrected:
        of_image, of_text, specific = (
            np.maximum(i - _bias(s, n), 0) for i, s in ((of_image, image), (of_text, text), (specific, image))
        )
        of_both = of_both - _bias(both, n)
    shared = np.minimum(of_image, of_text)
    if redundancy == "i_min":
        shared = np.minimum(shared, specific)
    without_synergy = of_image + of_text - shared
    # Each information is corrected separately, so I(A, B; Y) may fall below the sum of its parts; raise it to that sum.
    synergy = np.maximum(of_both, without_synergy) - without_synergy
    return Atoms(shared, of_image - shared, of_text - shared, synergy)


def shuffled(target: Bool[np.ndarray, " pair"], ids: tuple[str, ...], seed: int = 0) -> Bool[np.ndarray, " pair"]:
    """Permute the target over the pairs, in an order that depends only on their ids and the seed: the control."""
    order = np.argsort(hashed_uniform(pair_keys(ids), seed))
    again = np.argsort(hashed_uniform(pair_keys(ids), seed + 1))
    out = np.empty_like(target)
    out[order] = target[again]
    return out


def _information(joint: Float[np.ndarray, "*latents source target"]) -> PerLatent:
    """Return I(S; Y) of a joint distribution, in bits."""
    apart = joint.sum(-1, keepdims=True) * joint.sum(-2, keepdims=True)
    return _plog(joint, joint, apart).sum((-2, -1))


def _i_min(
    image: Float[np.ndarray, "*latents source target"], text: Float[np.ndarray, "*latents source target"]
) -> PerLatent:
    """Return sum_y p(y) min over sources of I(Y=y; S), with I(Y=y; S) = sum_s p(s|y) log2 p(y|s)/p(y)."""
    return np.minimum(_weighted_specific(image), _weighted_specific(text)).sum(-1)


def _weighted_specific(joint: np.ndarray) -> np.ndarray:
    apart = joint.sum(-1, keepdims=True) * joint.sum(-2, keepdims=True)
    return _plog(joint, joint, apart).sum(-2)


def _plog(weight: np.ndarray, above: np.ndarray, below: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = weight * np.log2(above / below)
    return np.where(weight == 0, 0.0, terms)


def _bias(joint: Float[np.ndarray, "*latents source target"], n: PerLatent) -> PerLatent:
    """Return the bias of I(S; Y) estimated from n samples, from the number of values of S that occur.

    Y has two values; where only one occurs, every information is 0 and stays 0.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return ((joint.sum(-1) > 0).sum(-1) - 1) / (2 * n * np.log(2))
