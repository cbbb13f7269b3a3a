"""Name latents with the vocabulary word that best separates their top samples from other samples.

From images: the word whose embedding is nearest to the direction from the background mean to the latent's top images,
in the space that both towers share. This is the decoder-direction naming of DN-CBM (arXiv 2407.14499) and MSAE, but
with a direction measured on samples, so it also works for dictionaries trained inside a tower.
From captions: the word whose share of top captions most exceeds its share of other captions. A second word is added
where it raises the AUROC clearly: `white / pale` (synonyms), `one + arrow` (both at once).

The score of a name is its AUROC at separating the samples it was made from from the background. It is optimistic,
because it is measured on those samples. `cliplens.naming.name_latents` also tests names on held-out samples.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Int

from cliplens.contracts import Namer
from cliplens.records import Evidence, Name
from cliplens_plugins.autointerp.contrast import contrastive_names
from cliplens_plugins.autointerp.nearest_word import Nearest, NearestWordNamer, nearest_words
from cliplens_plugins.autointerp.space import Rows, Seen, directions


@dataclass(frozen=True)
class VocabularyNamer(Namer):
    """Name each latent with a vocabulary word. Latents with fewer than `at_least` top samples get no name."""

    name: ClassVar[str] = "vocabulary"
    at_least: int = 3
    """Minimum number of top samples of a latent to be named."""
    least_image_score: float = 0.8
    """Minimum AUROC of a name from images; names below it are withheld.

    On the embedded world, correct image names score above .85, and the nearest words to a concept that has no word
    score below .76.
    """
    least_caption_score: float = 0.7
    """Minimum AUROC of a name from captions. It is lower because a concept with several words scores lower."""

    def from_images(self, evidence: Evidence) -> list[Name]:
        """Name each latent with the word nearest to the direction of its top images."""
        return _TopImages(self.at_least).names(evidence, "image", least_score=self.least_image_score)

    def from_captions(self, evidence: Evidence) -> list[Name]:
        """Name each latent with the one or two words that best separate its top captions from other captions."""
        least = self.least_caption_score
        return contrastive_names(evidence, "text", longest=1, at_least=self.at_least, least_score=least, parts=2)


@dataclass(frozen=True)
class _TopImages(NearestWordNamer):
    name: ClassVar[str] = "top images"

    def nearest(
        self, evidence: Evidence, seen: Seen, words: Rows, latents: Int[np.ndarray, " latent"]
    ) -> Nearest | None:
        exemplars, acts, background = seen
        mean = background.mean(axis=0)
        return nearest_words(lambda some: directions(exemplars, latents[some], acts, mean), len(latents), words)

    def told(self, nearness: float) -> str:
        return "nearest to its top images"
