"""Compute the sums per latent from which all modality scores follow. They add up over batches and machines.

| name | sum over pairs of | |
|---|---|---|
| `pairs` | 1 | number of pairs (a single number) |
| `any` | 1[abs(I) + abs(T) > 0] | pairs on which the latent fires in at least one modality |
| `fires_image`, `fires_text`, `fires_both` | 1[I > 0], 1[T > 0], both | firings |
| `d1`, `d2`, `d3` | d, d^2, d^3 with d = abs(I)/(abs(I)+abs(T)) - 1/2 | over firing pairs |
| `image`, `text` | abs(I), abs(T) | |
| `image2`, `text2` | I^2, T^2 | |
| `eps` | abs(I)/(abs(I)+abs(T)+eps) | the naive ratio |
"""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from cliplens.arrays import as_double
from cliplens.errors import InputError
from cliplens.records import PairedCodes
from cliplens.tally import Sums

EPS = 1e-8
_BLOCK = 1 << 22


def add_pairs(sums: Sums, codes: PairedCodes, chosen: Bool[np.ndarray, " row"] | None = None) -> None:
    """Add a batch of paired codes, or only its chosen rows."""
    joint = codes.joint
    latents, image, text, n_pairs = joint.latents, joint.image, joint.text, len(codes)
    if chosen is not None:
        of_chosen = torch.as_tensor(chosen, device=joint.rows.device)[joint.rows]
        latents, image, text = latents[of_chosen], image[of_chosen], text[of_chosen]
        n_pairs = int(chosen.sum())
    sums.add("pairs", n_pairs)
    _add_firings(sums, latents, image, text, codes.d_sae)


def add_ratios(sums: Sums, codes: PairedCodes) -> None:
    """Add only the sums of the default score, `any` and `d1`."""
    joint = codes.joint
    size_i, size_t = joint.image.double().abs(), joint.text.double().abs()
    sums.add_per_latent("any", joint.latents, None, codes.d_sae)
    sums.add_per_latent("d1", joint.latents, size_i / (size_i + size_t) - 0.5, codes.d_sae)


def sums_of_codes(image_codes: np.ndarray | Tensor, text_codes: np.ndarray | Tensor) -> Sums:
    """Return the sums of two code matrices [pair, latent], torch or numpy.

    Raises:
        InputError: the shapes differ.
        NonFiniteError: the codes contain nan or inf.
    """
    image = as_double(image_codes, "image codes", ("pair", "latent"))
    text = as_double(text_codes, "text codes", ("pair", "latent"))
    if image.shape != text.shape:
        raise InputError(
            expected="image and text codes of equal shape",
            found=f"shapes {tuple(image.shape)} and {tuple(text.shape)}",
            fix="encode image i and caption i of every pair with one dictionary",
        )
    return dense_sums(image, text)


def dense_sums(image_codes: Float[Tensor, "pair d_sae"], text_codes: Float[Tensor, "pair d_sae"]) -> Sums:
    """Return the sums of whole code matrices, computed in blocks of rows."""
    sums = Sums()
    n_pairs, d_sae = image_codes.shape
    sums.add("pairs", n_pairs)
    rows = max(1, _BLOCK // max(1, d_sae))
    for start in range(0, max(n_pairs, 1), rows):
        image, text = image_codes[start : start + rows], text_codes[start : start + rows]
        fires = ((image != 0) | (text != 0)).nonzero(as_tuple=True)
        _add_firings(sums, fires[1], image[fires], text[fires], d_sae)
    return sums


def _add_firings(
    sums: Sums,
    latents: Int64[Tensor, " firing"],
    image: Float[Tensor, " firing"],
    text: Float[Tensor, " firing"],
    d_sae: int,
) -> None:
    image, text = image.to(torch.float64), text.to(torch.float64)
    size_i, size_t = image.abs(), text.abs()
    total = size_i + size_t
    d = size_i / total - 0.5
    on_i, on_t = image > 0, text > 0
    terms = {
        "any": None,
        "fires_image": on_i,
        "fires_text": on_t,
        "fires_both": on_i & on_t,
        "d1": d,
        "d2": d * d,
        "d3": d * d * d,
        "image": size_i,
        "text": size_t,
        "image2": image * image,
        "text2": text * text,
        "eps": size_i / (total + EPS),
    }
    for name, values in terms.items():
        sums.add_per_latent(name, latents, values, d_sae)
