"""Evidence with known names: samples are sums of word directions, a latent fires where its word is present.

By construction the right name of latent k is `WORDS[k]`; the last latent never fires. Images and captions live on the
two sides of a modality gap, so that a namer that forgets to remove it fails.
"""

import numpy as np
import torch

from cliplens.records import Evidence, Exemplars, Pair, PairedActs
from cliplens.sites import Modality

WORDS = ("red", "blue", "green", "yellow", "black", "circle", "square", "star", "ring", "cross")
GROUPS = ((0, 1, 2, 3, 4), (5, 6, 7, 8, 9))


def planted_evidence(n: int = 600, d: int = 24, top: int = 20, seed: int = 0, *, background: bool = True) -> Evidence:
    """Evidence for `len(WORDS) + 1` latents, the last of them dead."""
    rng = np.random.default_rng(seed)
    directions = np.linalg.qr(rng.normal(size=(d, d)))[0][: len(WORDS)]
    present = np.zeros((n, len(WORDS)))
    for group in GROUPS:
        present[np.arange(n), rng.choice(group, n)] = 1
    acts = {
        side: present @ directions + gap + 0.1 * rng.normal(size=(n, d))
        for side, gap in (("image", 1.5 * rng.normal(size=d)), ("text", 1.5 * rng.normal(size=d)))
    }
    captions = ["a picture of a " + " ".join(w for w, p in zip(WORDS, row, strict=True) if p) for row in present]
    pairs = [Pair(f"p{i:04d}", None, c) for i, c in enumerate(captions)]
    codes = np.hstack([present * rng.uniform(0.5, 1.5, present.shape), np.zeros((n, 1))])
    half = n // 2
    images, image_acts = _top("image", codes[:half], pairs[:half], acts["image"][:half], top)
    texts, text_acts = _top("text", codes[:half], pairs[:half], acts["text"][:half], top)
    apart = slice(half, None)
    return Evidence(
        d_sae=len(WORDS) + 1,
        alive=np.array([True] * len(WORDS) + [False]),
        images=images,
        texts=texts,
        decoder=torch.from_numpy(np.vstack([directions, directions[:1]])).float(),
        vocabulary=WORDS,
        vocabulary_acts=torch.from_numpy(directions + rng.normal(size=d)).float(),
        image_acts=image_acts,
        text_acts=text_acts,
        background=tuple(pairs[apart]) if background else (),
        background_acts=PairedActs(
            tuple(p.id for p in pairs[apart]),
            torch.from_numpy(acts["image"][apart]).float(),
            torch.from_numpy(acts["text"][apart]).float(),
        )
        if background
        else None,
    )


def _top(
    modality: Modality, codes: np.ndarray, pairs: list[Pair], acts: np.ndarray, top: int
) -> tuple[Exemplars, torch.Tensor]:
    at, values = np.full((codes.shape[1], top), -1, dtype=np.int64), np.zeros((codes.shape[1], top))
    for k in range(codes.shape[1]):
        best = np.argsort(-codes[:, k], kind="stable")[:top]
        best = best[codes[best, k] > 0]
        at[k, : len(best)], values[k, : len(best)] = best, codes[best, k]
    return Exemplars(modality, tuple(pairs), at, values), torch.from_numpy(acts).float()
