"""Name latents with the word nearest to the decoder row, as in DN-CBM (arXiv 2407.14499) and MSAE.

The dictionary must be trained on the final embedding, which both towers share; otherwise no latent is named. A latent
has one decoder row, so its two names are the same word. Each name is given only if the latent fires in that modality,
and is scored on the samples of that modality.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Int

from cliplens.records import Evidence
from cliplens_plugins.autointerp.nearest_word import Nearest, NearestWordNamer, nearest_words
from cliplens_plugins.autointerp.space import Rows, Seen, UnitRows, blocks


@dataclass(frozen=True)
class DecoderNamer(NearestWordNamer):
    """Name each latent with the word nearest to its decoder row."""

    name: ClassVar[str] = "decoder"

    def nearest(
        self, evidence: Evidence, seen: Seen, words: Rows, latents: Int[np.ndarray, " latent"]
    ) -> Nearest | None:
        """Return the words nearest to the decoder rows; None if the dictionary was not trained on the embedding."""
        if evidence.decoder.shape[1] != words.shape[1]:
            return None
        rows, living = UnitRows(evidence.decoder), np.flatnonzero(evidence.alive)
        total = sum(rows[living[block]].sum(axis=0) for block in blocks(len(living), words.shape[1]))
        return nearest_words(lambda some: rows[latents[some]], len(latents), words, total / len(living))

    def told(self, nearness: float) -> str:
        """Describe the evidence."""
        return "nearest to its decoder row"
