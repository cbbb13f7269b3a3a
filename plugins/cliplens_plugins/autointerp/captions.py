"""Name latents with phrases that are frequent in the captions of top samples and rare in other captions."""

from dataclasses import dataclass
from typing import ClassVar

from cliplens.contracts import Namer
from cliplens.records import Evidence, Name
from cliplens.sites import Modality
from cliplens_plugins.autointerp.contrast import contrastive_names


@dataclass(frozen=True)
class CaptionNamer(Namer):
    """Name latents with contrastive n-grams of captions.

    The name from images uses the captions of the top images. No model and no shared space is needed, but a concept that
    is visible and never mentioned in a caption gets no name.
    """

    name: ClassVar[str] = "captions"
    longest: int = 3
    """Maximum number of words in a phrase."""
    parts: int = 2
    """Maximum number of phrases in a name: `white / pale` (synonyms) or `one + arrow` (both at once)."""
    at_least: int = 3
    """Minimum number of top samples of a latent to be named."""
    least_score: float = 0.7
    """Minimum AUROC of a name at separating top captions from other captions; names below it are withheld."""

    def from_images(self, evidence: Evidence) -> list[Name]:
        """Return, for each latent, the phrase that best separates the captions of its top images from others."""
        return self._names(evidence, "image")

    def from_captions(self, evidence: Evidence) -> list[Name]:
        """Return, for each latent, the phrase that best separates its top captions from other captions."""
        return self._names(evidence, "text")

    def _names(self, evidence: Evidence, modality: Modality) -> list[Name]:
        return contrastive_names(
            evidence,
            modality,
            longest=self.longest,
            at_least=self.at_least,
            least_score=self.least_score,
            parts=self.parts,
        )
