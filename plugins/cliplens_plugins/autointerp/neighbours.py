"""Name latents by their neighbours in context: what the captions nearest to a latent share.

LatentLens (arXiv 2602.00462) names a latent by the nearest of many token states, each in its sentence. Here the bank is
the captions of the background, whole, in the joint embedding space; so an image latent is named by captions of other
images, and pictures without captions can be named. The name is what these captions share and others lack.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Int

from cliplens.contracts import Namer
from cliplens.records import Evidence, Exemplars, Name
from cliplens.sites import Modality
from cliplens_plugins.autointerp.contrast import contrastive_names
from cliplens_plugins.autointerp.nearest_word import nearest_words, separation
from cliplens_plugins.autointerp.space import directions, make_unit, named_from, samples, unit, unit_array


@dataclass(frozen=True)
class NeighbourNamer(Namer):
    """Name each latent with the words that its nearest captions share. It needs a background of pairs with captions."""

    name: ClassVar[str] = "neighbours"
    neighbours: int = 32
    """Number of nearest captions of the background."""
    parts: int = 2
    """Maximum number of words in a name."""
    at_least: int = 3
    """Minimum number of top samples of a latent to be named."""
    least_score: float = 0.8
    """Minimum AUROC of the nearest captions at separating top samples from others; names below it are withheld."""
    least_lift: float = 0.7
    """Minimum AUROC of a name at separating the nearest captions from others; names below it are withheld."""

    def from_images(self, evidence: Evidence) -> list[Name]:
        """Name each latent with what the captions nearest to its top images share."""
        return self._names(evidence, "image")

    def from_captions(self, evidence: Evidence) -> list[Name]:
        """Name each latent with what the captions nearest to its top captions share."""
        return self._names(evidence, "text")

    def _names(self, evidence: Evidence, modality: Modality) -> list[Name]:
        found = self._nearest(evidence, modality)
        if found is None:
            return [Name(None, float("nan"))] * evidence.d_sae
        at, values, scores = found
        near = replace(evidence, texts=Exemplars("text", evidence.background, at, values))
        names = contrastive_names(near, "text", longest=1, at_least=1, least_score=self.least_lift, parts=self.parts)
        return [
            Name(name.text, float(score), f"captions in context: {name.evidence}")
            if name.text is not None and score >= self.least_score
            else Name(None, float("nan"))
            for name, score in zip(names, scores, strict=True)
        ]

    def _nearest(
        self, evidence: Evidence, modality: Modality
    ) -> tuple[Int[np.ndarray, "d_sae near"], Float[np.ndarray, "d_sae near"], Float[np.ndarray, " d_sae"]] | None:
        """Return the nearest captions of each latent, how near they are, and the AUROC of the mean of these captions at
        separating the top samples from the background; None without samples or captions."""
        seen = samples(evidence, modality)
        bank = None if evidence.background_acts is None else evidence.background_acts.of("text")
        if seen is None or bank is None or not len(bank):
            return None
        exemplars, acts, background = seen
        latents = named_from(exemplars, evidence.alive, self.at_least)
        count = min(self.neighbours, len(bank))
        at = np.full((evidence.d_sae, count), -1, dtype=np.int64)
        values = np.zeros((evidence.d_sae, count))
        scores = np.full(evidence.d_sae, np.nan)
        if len(latents):
            captions = unit_array(bank)
            captions = make_unit(captions - captions.mean(axis=0))
            mean = background.mean(axis=0)
            at[latents], values[latents] = nearest_words(
                lambda some: directions(exemplars, latents[some], acts, mean), len(latents), captions, told=count
            )
            scores[latents] = separation(seen, lambda some: unit(captions[at[latents[some]]].mean(axis=1)), latents)
        return at, values, scores
