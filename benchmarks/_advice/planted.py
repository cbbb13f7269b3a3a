"""Pairs of the world with planted faults: captions that are wrong about some colours, and shapes that are rare."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from cliplens.world import FACTORS, Scenes, captions, draw_scenes, render
from cliplens.world.captions import WORDS
from cliplens_hooks.models.world import pixels_to_tensor, world_tokenizer
from cliplens_hooks.training.world import TRAINING_SEED

WRONG_COLOURS = ("red", "yellow", "blue", "black")
"""Colours about which captions are often wrong."""
RARE_SHAPES = ("heart", "moon", "arrow")
"""Shapes of which there are few pictures."""
WRONG, KEPT = 0.6, 0.1
"""Share of captions that are wrong about a colour of the list; share of the pairs of a rare shape that are kept."""
_SEED = TRAINING_SEED + 4_000


@dataclass(frozen=True)
class Corpus:
    """Pairs: what the pictures show, and what the captions say."""

    scenes: Scenes
    texts: tuple[str, ...]
    wrong: Bool[np.ndarray, " pair"]
    """Captions that lack the colour or name another one."""

    def __len__(self) -> int:
        return len(self.texts)

    @cached_property
    def inputs(self) -> tuple[Tensor, Tensor]:
        """Preprocessed pictures and token ids."""
        return pixels_to_tensor(render(self.scenes)), world_tokenizer()(list(self.texts))

    def rewritten(self, rows: Int[np.ndarray, " chosen"]) -> "Corpus":
        """Return the pairs with right captions at these rows."""
        right = dict(zip(rows.tolist(), captions(self.scenes.rows(rows)), strict=True))
        texts = tuple(right.get(n, text) for n, text in enumerate(self.texts))
        return replace(self, texts=texts, wrong=self.wrong & ~np.isin(np.arange(len(self)), rows))

    def collected(self, others: "Corpus", rows: Int[np.ndarray, " chosen"]) -> "Corpus":
        """Return the pairs with more pairs, taken from others."""
        more = others.scenes.rows(rows)
        scenes = Scenes({name: np.concatenate([column, more[name]]) for name, column in self.scenes.values.items()})
        texts = (*self.texts, *(others.texts[int(n)] for n in rows))
        return Corpus(scenes, texts, np.concatenate([self.wrong, others.wrong[rows]]))


def clean(count: int, *, seed: int, part: int) -> Corpus:
    """Return pairs without faults. Another `part` of the same seed holds other pairs: to collect from, target, test."""
    scenes = draw_scenes(count, seed=_SEED + 10 * seed + part)
    return Corpus(scenes, tuple(captions(scenes)), np.zeros(count, dtype=bool))


def faulty(count: int, *, seed: int) -> Corpus:
    """Return pairs with rare shapes, in which a share of the captions is wrong about the listed colours.

    Half of the wrong captions lack the word for the colour, half name another colour.
    """
    rng = np.random.default_rng(seed)
    scenes = draw_scenes(3 * count, seed=_SEED + 10 * seed)
    rare = np.isin(scenes["shape"], _values("shape", RARE_SHAPES))
    kept = np.flatnonzero(~rare | (rng.random(len(rare)) < KEPT))[:count]
    scenes = scenes.rows(kept)
    wrong = np.isin(scenes["colour"], _values("colour", WRONG_COLOURS)) & (rng.random(count) < WRONG)
    other = (scenes["colour"] + rng.integers(1, len(WORDS["colour"]), count)) % len(WORDS["colour"])
    said = captions(scenes.replaced(colour=np.where(wrong, other, scenes["colour"])))
    lacks = wrong & (rng.random(count) < 0.5)
    words = {word for pair in WORDS["colour"] for word in pair}
    texts = [_without(text, words) if gone else text for text, gone in zip(said, lacks, strict=True)]
    return Corpus(scenes, tuple(texts), wrong)


def _without(text: str, words: set[str]) -> str:
    return " ".join(word for word in text.split() if word not in words)


def _values(factor: str, names: tuple[str, ...]) -> list[int]:
    return [FACTORS[factor].values.index(name) for name in names]


def batches(corpus: Corpus, size: int, steps: int, *, seed: int) -> "list[Tensor]":
    """Return the rows of each step: whole shuffled passes, one after another."""
    generator = torch.Generator().manual_seed(seed)
    rows: list[Tensor] = []
    order = torch.zeros(0, dtype=torch.long)
    while len(rows) < steps:
        if len(order) < size:
            order = torch.cat([order, torch.randperm(len(corpus), generator=generator)])
        rows.append(order[:size])
        order = order[size:]
    return rows
