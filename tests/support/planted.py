"""Planted codes and dictionaries: latents whose modality is known because they were made that way."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cliplens.records import Batch, GroundTruth, PairedActs, PairedCodes, SparseCodes


@dataclass(frozen=True)
class Planted:
    """Dense codes of both modalities with the class each latent was made to have."""

    ids: tuple[str, ...]
    image: Float[Tensor, "pair d_sae"]
    text: Float[Tensor, "pair d_sae"]
    classes: np.ndarray


def planted_codes(n_pairs: int = 2000, per_class: int = 40, *, seed: int = 0, dead: int = 0) -> Planted:
    """Sparse codes with heavy-tailed firing rates and latents of unequal size, a third of each class.

    ImgD latents fire on images, TextD on captions, with a twentieth of their firings on the other side; CrossD latents
    fire on both sides of the same pairs, missing a fifth of them on each side.
    """
    g = np.random.default_rng(seed)
    k = 3 * per_class
    classes = np.repeat(np.array(["ImgD", "TextD", "CrossD"], dtype="<U6"), per_class)
    rate = np.clip(0.01 * (1 + g.pareto(1.5, k)), None, 0.3)
    size = np.exp(g.normal(0, 1, k))
    concept = g.random((n_pairs, k)) < rate
    leak = g.random((n_pairs, k)) < 0.05
    kept_i, kept_t = g.random((n_pairs, k)) < 0.8, g.random((n_pairs, k)) < 0.8
    on_image = concept & np.where(classes == "ImgD", True, np.where(classes == "TextD", leak, kept_i))
    on_text = concept & np.where(classes == "TextD", True, np.where(classes == "ImgD", leak, kept_t))
    image = on_image * size * g.gamma(2.0, 0.5, (n_pairs, k))
    text = on_text * size * g.gamma(2.0, 0.5, (n_pairs, k))
    pad = np.zeros((n_pairs, dead))
    ids = tuple(f"planted-{seed}-{m:06d}" for m in range(n_pairs))
    return Planted(
        ids,
        torch.tensor(np.hstack([image, pad])),
        torch.tensor(np.hstack([text, pad])),
        np.concatenate([classes, np.full(dead, "dead", dtype="<U6")]),
    )


def batch_of(
    ids: tuple[str, ...],
    image: Float[Tensor, "row d_sae"] | None,
    text: Float[Tensor, "row d_sae"] | None,
    *,
    judged: dict[str, PairedActs] | None = None,
    truth: GroundTruth | None = None,
    decoder: Float[Tensor, "d_sae d_in"] | None = None,
) -> Batch:
    """A batch with these codes, reconstructed by `decoder` (the identity when None), its activations slightly off."""
    sides = {"image": image, "text": text}
    back = {
        m: (codes @ decoder if decoder is not None else codes) if codes is not None else None
        for m, codes in sides.items()
    }
    acts = {m: None if b is None else b + 0.1 * torch.sin(37.0 * b + 1.0) for m, b in back.items()}
    codes = PairedCodes(ids, *(None if c is None else SparseCodes.from_dense(c) for c in (image, text)))
    return Batch(PairedActs(ids, **acts), codes, PairedActs(ids, **back), judged or {}, truth)


def batches_of(planted: Planted, size: int = 256, **options: object) -> list[Batch]:
    """The planted codes cut into batches."""
    return [
        batch_of(planted.ids[a : a + size], planted.image[a : a + size], planted.text[a : a + size], **options)  # type: ignore[arg-type]
        for a in range(0, len(planted.ids), size)
    ]
