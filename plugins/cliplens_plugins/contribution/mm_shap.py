"""MM-SHAP: whether the model relies on the image or the caption of a pair. A question about inputs, not latents."""

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
"""Token id that stands for a masked token: CLIP's tokenizer pads with it."""


@dataclass(frozen=True)
class InputShares:
    """The share of the text in the sum of absolute Shapley values of all inputs: 0 images only, 1 text only."""

    text: Float[np.ndarray, " pair"]

    @property
    def mean(self) -> tuple[float, float, float]:
        """Mean share and its bootstrap interval over pairs."""
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
    """Return T-SHAP of each pair: the sum of |phi| over its words, over that sum and the one over its patches.

    v(S) is the cosine of image and caption with only the patches and tokens in S shown. Hidden patches take the mean
    colour of the preprocess (0), hidden tokens the id 0. Shapley values are sampled: each permutation is used forwards
    and backwards.

    Args:
        clip: the model.
        images: preprocessed images.
        tokens: token ids of their captions, in step.
        side: the picture is cut into side x side patches.
        permutations: orders of the inputs per pair.
        seed: of the orders.
        forward_batch: samples per forward pass.

    Raises:
        InputError: the picture cannot be cut into that many patches of equal size.

    Source: Parcalabescu and Frank, arXiv 2212.08158. Ours: a fixed grid of patches instead of one whose size follows
    the length of the caption, the cosine instead of the logit, antithetic permutations.
    """
    height, width = images.shape[-2:]
    if height % side or width % side:
        raise InputError(
            expected=f"pictures that {side} x {side} equal patches fill", found=f"{height} x {width} pixels",
            fix="choose a side that divides both",
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
    """Return the positions between the start of the text and its end."""
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
    """Return v of each subset. Each tower runs once per distinct mask of its own inputs."""
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
