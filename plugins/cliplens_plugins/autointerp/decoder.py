"""Decoder names: the word nearest to the latent's decoder row, as in DN-CBM (arXiv 2407.14499) and MSAE.

The dictionary must read the space both towers share (the final embedding). Elsewhere a decoder row cannot be compared
with words, and no latent is named. A latent has one decoder row, so both its names are the same word; each is given
only where the latent fires in that modality, and scored on its samples there.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Int

from cliplens.records import Evidence
from cliplens_plugins.autointerp.nearest_word import Nearest, NearestWordNamer, nearest_words
from cliplens_plugins.autointerp.space import Rows, Seen, array, unit


@dataclass(frozen=True)
class DecoderNamer(NearestWordNamer):
    """Name each latent with the word nearest to its decoder row."""

    name: ClassVar[str] = "decoder"

    def nearest(
        self, evidence: Evidence, seen: Seen, words: Rows, latents: Int[np.ndarray, " latent"]
    ) -> Nearest | None:
        """Return the words nearest to the decoder rows; None where the dictionary reads another space."""
        if evidence.decoder.shape[1] != words.shape[1]:
            return None
        rows = unit(array(evidence.decoder))
        return nearest_words(rows[latents], words, rows[evidence.alive].mean(axis=0))

    def told(self, nearness: float) -> str:
        """Describe the evidence."""
        return "nearest to its decoder row"
