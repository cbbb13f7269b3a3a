"""MM-SHAP: measure whether the model relies on the image or on the caption of a pair (not on which latents)."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cliplens.errors import InputError
from cliplens.hooked import HookedCLIP
from cliplens.shapes import Images, Tokens
from cliplens.statistics import mean_interval

_BLANK = 0
"""Token id of hidden tokens: the one that CLIP's tokenizer pads with."""


@dataclass(frozen=True)
class InputShares:
    """Share of the caption in the sum of absolute Shapley values of all inputs. 0: image only; 1: caption only."""

    text: Float[np.ndarray, " pair"]

    @property
    def mean(self) -> tuple[float, float, float]:
        """Mean share with its 95 % bootstrap interval over pairs: (mean, low, high)."""
        return mean_interval(self.text)


@torch.no_grad()
def mm_shap(
    clip: HookedCLIP,
    images: Images,
    tokens: Tokens,
    *,
    side: int = 4,
    permutations: int = 5,
    seed: int = 0,
    forward_batch: int = 256,
) -> InputShares:
    """Return T-SHAP of each pair: the sum of |phi| over its words, divided by the sum over words and patches.

    phi is the Shapley value of a word or patch for the cosine of image and caption, computed with some of them hidden.
    Hidden patches have the mean colour of the preprocess (0), hidden tokens the id 0. Shapley values are estimated from
    random orders, each used forwards and backwards.

    Args:
        clip: the model.
        images: preprocessed images.
        tokens: token ids of their captions, in step.
        side: number of patches per side; the picture is cut into side x side patches.
        permutations: number of random orders per pair.
        seed: seed of the orders.
        forward_batch: samples per forward pass.

    Raises:
        InputError: `side` does not divide height and width of the pictures.

    Source: Parcalabescu and Frank, arXiv 2212.08158. Three things differ here: the grid of patches is fixed, theirs
    depends on the length of the caption; the cosine replaces the logit; each order is also used backwards.
    """
    height, width = images.shape[-2:]
    if height % side or width % side:
        raise InputError(
            expected=f"pictures that can be cut into {side} x {side} equal patches", found=f"{height} x {width} pixels",
            fix="pass a side that divides height and width",
        )  # fmt: skip
    rng = np.random.default_rng(seed)
    return InputShares(np.array([
        _text_share(clip, images[i : i + 1], tokens[i : i + 1], side, permutations, rng, forward_batch)
        for i in range(len(images))
    ]))  # fmt: skip


def _text_share(
    clip: HookedCLIP, image: Tensor, token: Tensor, side: int, permutations: int, rng: np.random.Generator, size: int
) -> float:
    words = torch.as_tensor(_words(clip, token))
    patches = side * side
    n = patches + len(words)
    orders = [order for _ in range(permutations) for order in _both_ways(rng.permutation(n))]
    shown = np.stack([np.isin(np.arange(n), order[:k]) for order in orders for k in range(n + 1)])
    values = _cosines(clip, image, token, words, shown, side, size).reshape(len(orders), n + 1)
    gains = np.diff(values, axis=1)
    phi = np.zeros(n)
    for order, gain in zip(orders, gains, strict=True):
        phi[order] += gain / len(orders)
    total = np.abs(phi).sum()
    return float(np.abs(phi[patches:]).sum() / total) if total > 0 else float("nan")


def _both_ways(order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return order, order[::-1].copy()


def _words(clip: HookedCLIP, token: Tensor) -> list[int]:
    """Return the positions between start and end token."""
    assert clip.text is not None
    end = int(clip.text.special_position(token)[0])
    return list(range(1, min(end, token.shape[1])))


def _cosines(
    clip: HookedCLIP,
    image: Tensor,
    token: Tensor,
    words: Tensor,
    shown: Bool[np.ndarray, "subset player"],
    side: int,
    size: int,
) -> Float[np.ndarray, " subset"]:
    """Return the cosine for each subset of shown inputs. Each tower runs once per distinct mask of its inputs."""
    patches = side * side
    pictures, of_picture = np.unique(shown[:, :patches], axis=0, return_inverse=True)
    texts, of_text = np.unique(shown[:, patches:], axis=0, return_inverse=True)
    masks = torch.as_tensor(pictures).view(-1, 1, side, side)
    masks = masks.repeat_interleave(image.shape[-2] // side, 2).repeat_interleave(image.shape[-1] // side, 3)
    hidden = token.repeat(len(texts), 1)
    hidden[:, words] = torch.where(torch.as_tensor(texts), hidden[:, words], _BLANK)
    image_rows = torch.cat([
        clip.encode_image((image * part.to(image)).to(clip.device), normalize=True) for part in masks.split(size)
    ])  # fmt: skip
    text_rows = torch.cat([clip.encode_text(part.to(clip.device), normalize=True) for part in hidden.split(size)])
    rows = image_rows.flatten(1).double()[torch.as_tensor(of_picture.ravel())]
    other = text_rows.flatten(1).double()[torch.as_tensor(of_text.ravel())]
    found: np.ndarray = (rows * other).sum(1).cpu().numpy()
    return found
