"""Decoder names: the word nearest to the latent's decoder row, as in DN-CBM (arXiv 2407.14499) and MSAE.

The dictionary must read the space both towers share (the final embedding): elsewhere a decoder row cannot be compared
with words, and nothing is named. Both names come from the one decoder row a latent has; each is given only where the
latent fires in that modality, and scored on its samples there.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from cliplens.contracts import Namer
from cliplens.naming import auroc
from cliplens.records import Evidence, Name
from cliplens.sites import Modality
from cliplens_plugins.autointerp.space import array, named_from, samples, spoken, top_of, unit


@dataclass(frozen=True)
class DecoderNamer(Namer):
    """The word nearest to the decoder row."""

    name: ClassVar[str] = "decoder"
    at_least: int = 3
    """Top samples a latent must have in the modality."""

    def from_images(self, evidence: Evidence) -> list[Name]:
        """The nearest word, where the latent fires on images."""
        return self._names(evidence, "image")

    def from_captions(self, evidence: Evidence) -> list[Name]:
        """The nearest word, where the latent fires on captions."""
        return self._names(evidence, "text")

    def _names(self, evidence: Evidence, modality: Modality) -> list[Name]:
        names = [Name(None, float("nan"))] * evidence.d_sae
        seen, words = samples(evidence, modality), spoken(evidence)
        if seen is None or words is None or evidence.decoder.shape[1] != words.shape[1]:
            return names
        exemplars, acts, background = seen
        latents = named_from(exemplars, evidence.alive, self.at_least)
        if not latents:
            return names
        nearness = unit(array(evidence.decoder)) @ words.T
        nearness -= nearness[evidence.alive].mean(axis=0)  # a word near to everything names nothing (hubness)
        middle = background.mean(axis=0)
        for k in latents:
            order = np.argsort(-nearness[k])
            towards = words[order[0]]
            score = auroc((acts[top_of(exemplars, k)] - middle) @ towards, (background - middle) @ towards)
            best, *others = (evidence.vocabulary[w] for w in order[:4])
            names[k] = Name(best, score, f"nearest to its decoder row; next: {', '.join(others)}")
        return names
