"""Batches of drawings and captions for the training of the embedded model of real drawings."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from cliplens.pairs.emoji import ARTISTS, Drawing, data_folder, drawings, is_unseen, named
from cliplens.pictures import open_picture
from cliplens.progress import Bar
from cliplens_hooks.models.emoji import CONTEXT, MEAN, SIDE, STD, TRAINED_LANGUAGES, emoji_tokenizer
from cliplens_hooks.training.emoji_text import Encoder

HARD = 0.5
"""Share of the steps in which half of the batch are cells of three professions."""
_PEOPLE = 0.25
"""Share of an ordinary batch that is drawn from all trained emoji; the rest takes every concept equally often."""
_TAGGED = 0.4
"""Share of captions with keywords beside or in place of the name."""
_CUT = 16


@dataclass(frozen=True)
class Batch:
    """Distinct emoji, each in the hand of one artist, with an English caption and one in another language."""

    pixels: UInt8[Tensor, "batch 3 side side"]
    english: list[list[int]]
    other: list[list[int]]
    artist: Int64[Tensor, " batch"]
    language: Int64[Tensor, " batch"]
    """Place of the other language in `TRAINED_LANGUAGES`."""


def pictures_of(found: Sequence[Drawing]) -> UInt8[Tensor, "drawing 3 side side"]:
    """Return drawings on white at the size of the model, as its preprocess makes them before it normalises."""
    pixels = np.empty((len(found), SIDE, SIDE, 3), dtype=np.uint8)
    for n, drawing in enumerate(Bar(found, desc="opening drawings")):
        pixels[n] = np.asarray(open_picture(drawing.path).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()


def normalised(pixels: UInt8[Tensor, "batch 3 side side"]) -> Float[Tensor, "batch 3 side side"]:
    """Return pictures as inputs of the model."""
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, STD))
    return (pixels.float().div_(255) - mean).div_(std)


class Data:
    """Training data: drawings of `artists` and names in `TRAINED_LANGUAGES`, without held-out concepts and cells."""

    def __init__(self, artists: Sequence[str] = tuple(ARTISTS)) -> None:
        folder = data_folder()
        self.artists = tuple(artists)
        every = [drawing for a in artists for drawing in drawings(folder / ARTISTS[a], a) if not is_unseen(drawing)]
        self.pixels = pictures_of(every)
        tokenizer = emoji_tokenizer()
        self.encode, self.vocab_size = Encoder(tokenizer), tokenizer.vocab_size
        self._names = {language: named(language) for language in TRAINED_LANGUAGES}
        self._rows: dict[str, dict[str, int]] = defaultdict(dict)
        self._concepts: dict[str, list[str]] = defaultdict(list)
        self._cells: dict[str, list[str]] = defaultdict(list)
        self._people: set[str] = set()
        for row, drawing in enumerate(every):
            code = drawing.codepoints
            if code not in self._rows:
                self._concepts[drawing.concept].append(code)
                if drawing.profession != "none":
                    self._cells[drawing.profession].append(code)
                if drawing.gender != "none":
                    self._people.add(code)
            self._rows[code][drawing.artist] = row
        self._codes = list(self._rows)

    def batch(self, size: int, rng: np.random.Generator) -> Batch:
        """Return a batch that depends only on the random numbers."""
        codes = self._emoji(size, rng)
        artists, rows = [], []
        for code in codes:
            drawn = sorted(self._rows[code])
            artist = drawn[rng.integers(len(drawn))]
            artists.append(self.artists.index(artist))
            rows.append(self._rows[code][artist])
        languages = rng.integers(1, len(TRAINED_LANGUAGES), size)
        other = [self._caption(c, TRAINED_LANGUAGES[n], rng) for c, n in zip(codes, languages, strict=True)]
        return Batch(
            self.pixels[rows],
            [self._caption(code, "en", rng) for code in codes],
            other,
            torch.tensor(artists),
            torch.from_numpy(languages),
        )

    def _emoji(self, size: int, rng: np.random.Generator) -> list[str]:
        chosen: dict[str, None] = {}
        if rng.random() < HARD:
            for place in rng.choice(len(self._cells), 3, replace=False):
                for code in rng.permutation(self._cells[sorted(self._cells)[place]]):
                    if len(chosen) < size // 2:
                        chosen[str(code)] = None
        else:
            for place in rng.choice(len(self._codes), int(size * _PEOPLE), replace=False):
                chosen[self._codes[place]] = None
        concepts = list(self._concepts)
        for place in rng.permutation(len(concepts)):
            if len(chosen) == size:
                break
            of_concept = self._concepts[concepts[place]]
            chosen.setdefault(of_concept[rng.integers(len(of_concept))])
        return list(chosen)

    def _caption(self, code: str, language: str, rng: np.random.Generator) -> list[int]:
        name, tags = self._names[language].get(code, ("", ()))
        parts = [name]
        if rng.random() < _TAGGED and tags:
            some = [tags[n] for n in rng.permutation(len(tags))[: rng.integers(1, 4)]]
            alone = code not in self._people and rng.random() < 0.5
            parts = some if alone else [name, *some]
        return self.encode.joined(parts)

    def padded(self, captions: list[list[int]]) -> Int64[Tensor, "caption token"]:
        """Return token ids as wide as the longest of the captions needs."""
        return self.encode.padded(captions, CONTEXT)


def augmented(
    pixels: UInt8[Tensor, "batch 3 side side"], rng: np.random.Generator
) -> Float[Tensor, "batch 3 side side"]:
    """Return inputs turned, scaled, moved, recoloured a little, half of them with a white square cut out."""
    n = len(pixels)
    dark = 1.0 - pixels.float().div_(255)  # outside the picture is 0, which is white
    angle, scale = rng.uniform(-0.25, 0.25, n), rng.uniform(0.88, 1.2, n)
    cos, sin = np.cos(angle) * scale, np.sin(angle) * scale
    shift = rng.uniform(-0.12, 0.12, (2, n))
    theta = np.stack([np.stack([cos, -sin, shift[0]], 1), np.stack([sin, cos, shift[1]], 1)], 1)
    grid = F.affine_grid(torch.from_numpy(theta).float(), list(dark.shape), align_corners=False)
    moved = F.grid_sample(dark, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    moved = moved * torch.from_numpy(rng.uniform(0.9, 1.1, (n, 3, 1, 1))).float()
    for row in np.flatnonzero(rng.random(n) < 0.5):
        y, x = rng.integers(0, SIDE - _CUT, 2)
        moved[row, :, y : y + _CUT, x : x + _CUT] = 0
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, STD))
    return (1.0 - moved - mean).div_(std)
