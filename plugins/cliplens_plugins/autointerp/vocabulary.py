"""Vocabulary names: the word that tells a latent's top samples from other samples best.

From images: the word whose embedding is nearest to the direction from the background to the latent's top images, in the
space both towers share. This is the decoder-direction naming of DN-CBM (arXiv 2407.14499) and MSAE, with the direction
measured on samples, so that it also works where the dictionary reads inside a tower.
From captions: the word whose share of top captions exceeds its share of other captions most, and a second word where
both together tell clearly more: `white / pale` (two words for one thing), `one + arrow` (both at once).

The score of a name is the AUROC of telling the samples it was made from apart from the background by the name alone. It
is optimistic, because the samples were seen. `cliplens.naming.name_latents` tests names on samples that were not.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Int

from cliplens.contracts import Namer
from cliplens.records import Evidence, Name
from cliplens_plugins.autointerp.contrast import contrastive_names
from cliplens_plugins.autointerp.nearest_word import Nearest, NearestWordNamer, nearest_words
from cliplens_plugins.autointerp.space import Rows, Seen, directions, unit


@dataclass(frozen=True)
class VocabularyNamer(Namer):
    """Name each latent with a word of the vocabulary; no name where fewer than `at_least` samples fire."""

    name: ClassVar[str] = "vocabulary"
    at_least: int = 3
    """Number of top samples a latent must have."""
    least_image_score: float = 0.8
    """Lowest AUROC on the top images with which a name from images is given.

    On the embedded world right image names score above .85, and the nearest words to what no word names below .76.
    """
    least_caption_score: float = 0.7
    """The same for names from captions, whose score is lower where a concept has several words."""

    def from_images(self, evidence: Evidence) -> list[Name]:
        """Name each latent with the word nearest to the direction of its top images."""
        return _TopImages(self.at_least).names(evidence, "image", least_score=self.least_image_score)

    def from_captions(self, evidence: Evidence) -> list[Name]:
        """Name each latent with the word, or two, by which its top captions differ most from other captions."""
        least = self.least_caption_score
        return contrastive_names(evidence, "text", longest=1, at_least=self.at_least, least_score=least, parts=2)


@dataclass(frozen=True)
class _TopImages(NearestWordNamer):
    name: ClassVar[str] = "top images"

    def nearest(
        self, evidence: Evidence, seen: Seen, words: Rows, latents: Int[np.ndarray, " latent"]
    ) -> Nearest | None:
        exemplars, acts, background = seen
        rows = unit(directions(exemplars, latents, acts) - background.mean(axis=0))
        return nearest_words(rows, words, rows.mean(axis=0))

    def told(self, nearness: float) -> str:
        return "nearest to its top images"
