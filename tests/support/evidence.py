"""Evidence with known names: samples are sums of word directions, a latent fires where its word is present.

By construction the right name of latent k is `WORDS[k]`; the last latent never fires. Images and captions live on the
two sides of a modality gap, so that a namer that forgets to remove it fails.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image

from cliplens.records import Evidence, Exemplars, Pair, PairedActs, PairedCodes, SparseCodes
from cliplens.sites import Modality

WORDS = ("red", "blue", "green", "yellow", "black", "circle", "square", "star", "ring", "cross")
GROUPS = ((0, 1, 2, 3, 4), (5, 6, 7, 8, 9))
DOT = Image.new("RGB", (1, 1))


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
    pairs = [Pair(f"p{i:04d}", DOT, c) for i, c in enumerate(captions)]
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
        background_codes=PairedCodes(
            tuple(p.id for p in pairs[apart]),
            SparseCodes.from_dense(torch.from_numpy(codes[apart])),
            SparseCodes.from_dense(torch.from_numpy(codes[apart])),
        )
        if background
        else None,
    )


def planted_embed(evidence: Evidence, seed: int = 0) -> Callable[[Sequence[str]], torch.Tensor]:
    """The text tower of the planted world: a word it knows is its direction, any other text is noise of its own."""
    assert evidence.vocabulary_acts is not None
    known = dict(zip(evidence.vocabulary, evidence.vocabulary_acts, strict=True))
    size = evidence.vocabulary_acts.shape[1]

    def embed(texts: Sequence[str]) -> torch.Tensor:
        rows = []
        for text in texts:
            said = [known[w] for w in text.split() if w in known]
            generator = torch.Generator().manual_seed(seed + len(text))
            rows.append(torch.stack(said).mean(0) if said else torch.randn(size, generator=generator))
        return torch.stack(rows)

    return embed


def _top(
    modality: Modality, codes: np.ndarray, pairs: list[Pair], acts: np.ndarray, top: int
) -> tuple[Exemplars, torch.Tensor]:
    at, values = np.full((codes.shape[1], top), -1, dtype=np.int64), np.zeros((codes.shape[1], top))
    for k in range(codes.shape[1]):
        best = np.argsort(-codes[:, k], kind="stable")[:top]
        best = best[codes[best, k] > 0]
        at[k, : len(best)], values[k, : len(best)] = best, codes[best, k]
    return Exemplars(modality, tuple(pairs), at, values), torch.from_numpy(acts).float()
