"""The input and output of namers: evidence about each latent, and the names made from it."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from cliplens.records.codes import PairedActs, PairedCodes
from cliplens.records.exemplars import Exemplars
from cliplens.records.identity import Pair


@dataclass(frozen=True)
class Name:
    """A name of a latent with what speaks for it; `text` is None when there is no evidence."""

    text: str | None
    score: float
    """Higher is better; what it means is the namer's to say. nan when unnamed."""
    evidence: str = ""


@dataclass(frozen=True)
class Evidence:
    """All a namer may look at: exemplars and a background from held-out pairs, decoder rows, a vocabulary.

    `*_acts` are embeddings in the space both towers share (the final embedding), whatever site the dictionary reads;
    how they are centred or scaled does not matter.
    """

    d_sae: int
    alive: Bool[np.ndarray, " d_sae"]
    images: Exemplars | None
    texts: Exemplars | None
    decoder: Float[Tensor, "d_sae d_in"]
    vocabulary: tuple[str, ...] = ()
    vocabulary_acts: Float[Tensor, "word d_embed"] | None = None
    """Embeddings of the vocabulary, each word alone or in a template."""
    image_acts: Float[Tensor, "image d_embed"] | None = None
    """Embeddings of `images.pairs`, in order."""
    text_acts: Float[Tensor, "caption d_embed"] | None = None
    """Embeddings of the captions of `texts.pairs`, in order."""
    background: tuple[Pair, ...] = ()
    """Held-out pairs taken at random, for contrast; without them the exemplars of all other latents stand in."""
    background_acts: PairedActs | None = None
    """Embeddings of `background`, in order."""
    background_codes: PairedCodes | None = None
    """Codes of `background`, in order: they say on which of them a latent is silent."""
    fixed_vocabulary: bool = False
    """Whether names may consist of words of `vocabulary` alone, because a user chose it."""
