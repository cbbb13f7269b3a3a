"""Caption names: the phrase that the captions of top samples share and other captions do not."""

from dataclasses import dataclass
from typing import ClassVar

from cliplens.contracts import Namer
from cliplens.records import Evidence, Name
from cliplens.sites import Modality
from cliplens_plugins.autointerp.contrast import contrastive_names


@dataclass(frozen=True)
class CaptionNamer(Namer):
    """Contrastive n-grams. From images it reads the captions its top images come with, so both names come from words.

    It needs no shared space and no model at all, and says nothing of what is seen but never said.
    """

    name: ClassVar[str] = "captions"
    longest: int = 3
    """Most words in a name."""
    parts: int = 2
    """Most phrases in a name, as in `white / pale` (two words for one thing) or `one + arrow` (both)."""
    at_least: int = 3
    """Top samples a latent must have."""
    least_score: float = 0.7
    """Names that tell top captions from others no better than this AUROC are withheld."""

    def from_images(self, evidence: Evidence) -> list[Name]:
        """The phrase by which the captions of each latent's top images differ most from other captions."""
        return self._names(evidence, "image")

    def from_captions(self, evidence: Evidence) -> list[Name]:
        """The phrase by which each latent's top captions differ most from other captions."""
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
