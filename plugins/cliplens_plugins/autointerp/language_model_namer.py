"""Name latents by asking a language or vision-language model: the base class of such namers."""

import logging
from abc import abstractmethod
from dataclasses import dataclass, replace

from cliplens.contracts import Namer
from cliplens.records import Evidence, Name
from cliplens.sites import Modality
from cliplens_plugins.autointerp.name_questions import name_questions
from cliplens_plugins.autointerp.questions import Backend, QuestionQueue

log = logging.getLogger(__name__)
_FAILED = Name(None, float("nan"), "no usable answer was given")


@dataclass(frozen=True)
class LanguageModelNamer(Namer):
    """Asks a model for one name per latent and modality. The score of a name is the model's stated confidence."""

    shown: int = 8
    """Number of top samples in a question."""
    others: int = 6
    """Number of silent samples in a question."""
    at_least: int = 3
    """Minimum number of top samples of a latent to be named."""

    @abstractmethod
    def queue(self) -> tuple[QuestionQueue[Name], Backend]:
        """Open the model and return the question queue and its backend."""

    def from_images(self, evidence: Evidence) -> list[Name]:
        """Name each latent from its top images, sent as data URLs. A model without image input gives no names."""
        return self._names(evidence, "image")

    def from_captions(self, evidence: Evidence) -> list[Name]:
        """Name each latent from its top captions."""
        return self._names(evidence, "text")

    def _names(self, evidence: Evidence, modality: Modality) -> list[Name]:
        names = [Name(None, float("nan"))] * evidence.d_sae
        questions = name_questions(evidence, modality, shown=self.shown, others=self.others, at_least=self.at_least)
        if not questions:
            return names
        queue, backend = self.queue()
        if modality == "image" and not backend.sees:
            log.warning("%s accepts no images, so no latent is named from images", backend.model)
            return names
        about = f"{backend.model} on its top {modality} samples"
        for question, answer in zip(questions, queue.ask_all(questions, what="names"), strict=True):
            names[question.latent] = _FAILED if answer is None else replace(answer, evidence=about)
        return names
