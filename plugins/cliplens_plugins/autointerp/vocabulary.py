"""Vocabulary names: the word that tells a latent's top samples from other samples best.

From images: the direction from the background to the latent's top images, in the space both towers share, and the word
whose embedding lies nearest to that direction (the decoder-direction naming of DN-CBM, arXiv 2407.14499, and MSAE, with
the direction measured on samples so that it also works where the dictionary reads inside a tower).
From captions: the word whose share of top captions exceeds its share of other captions most, and a second one where
both together tell clearly more: `white / pale` (two words for one thing), `one + arrow` (both at once).

The score of a name is the AUROC of telling the samples it was made from apart from the background by the name alone:
optimistic, as the samples were seen. `cliplens.naming.name_latents` tests names on samples that were not.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from cliplens.contracts import Namer
from cliplens.naming import auroc
from cliplens.records import Evidence, Name
from cliplens_plugins.autointerp.contrast import contrastive_names
from cliplens_plugins.autointerp.space import direction, named_from, samples, spoken, top_of, unit

NOTHING = Name(None, float("nan"))


@dataclass(frozen=True)
class VocabularyNamer(Namer):
    """One word per latent from a vocabulary; none where fewer than `at_least` samples fire or no word tells them."""

    name: ClassVar[str] = "vocabulary"
    at_least: int = 3
    """Top samples a latent must have."""
    least_image_score: float = 0.8
    """Image names that tell the top images apart no better than this AUROC are withheld.

    On the embedded world right image names score above .85, and the nearest words to what no word names below .76.
    """
    least_caption_score: float = 0.7
    """The same for names from captions, whose score is lower where a concept has several words."""

    def from_images(self, evidence: Evidence) -> list[Name]:
        """The vocabulary's word nearest to the direction of each latent's top images."""
        names = [NOTHING] * evidence.d_sae
        seen, words = samples(evidence, "image"), spoken(evidence)
        if seen is None or words is None:
            return names
        exemplars, acts, background = seen
        latents = named_from(exemplars, evidence.alive, self.at_least)
        if not latents:
            return names
        middle = background.mean(axis=0)
        nearness = unit(np.stack([direction(exemplars, k, acts) for k in latents]) - middle) @ words.T
        nearness -= nearness.mean(axis=0)  # a word near to everything names nothing (hubness)
        for row, k in zip(nearness, latents, strict=True):
            order = np.argsort(-row)
            towards = words[order[0]]
            score = auroc((acts[top_of(exemplars, k)] - middle) @ towards, (background - middle) @ towards)
            if score >= self.least_image_score:
                best, *others = (evidence.vocabulary[w] for w in order[:4])
                names[k] = Name(best, score, f"nearest to its top images; next: {', '.join(others)}")
        return names

    def from_captions(self, evidence: Evidence) -> list[Name]:
        """The word, or two, by which each latent's top captions differ most from other captions."""
        least = self.least_caption_score
        return contrastive_names(evidence, "text", longest=1, at_least=self.at_least, least_score=least, parts=2)
