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
    """A name of a latent with its score and evidence; `text` is None without evidence."""

    text: str | None
    score: float
    """Higher is better; the scale depends on the namer. nan without a name."""
    evidence: str = ""


@dataclass(frozen=True)
class Evidence:
    """The input of a namer: exemplars and a background from held-out pairs, decoder rows, a vocabulary.

    `*_acts` are final embeddings, in the joint embedding space, for a dictionary of any site. Namers must not depend on
    how they are centred or scaled.
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
    """Embeddings of `images.pairs`, in order; float16 before the evidence is split, if the cache holds float16."""
    text_acts: Float[Tensor, "caption d_embed"] | None = None
    """Embeddings of the captions of `texts.pairs`, in order."""
    background: tuple[Pair, ...] = ()
    """Random held-out pairs, for contrast; without them, namers use the exemplars of all other latents."""
    background_acts: PairedActs | None = None
    """Embeddings of `background`, in order."""
    background_codes: PairedCodes | None = None
    """Codes of `background`, in order; they show on which pairs a latent does not fire."""
    fixed_vocabulary: bool = False
    """Whether names must consist of words of `vocabulary`, because a user chose it."""
