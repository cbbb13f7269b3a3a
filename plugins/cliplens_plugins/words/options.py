"""The options of a study of words."""

from dataclasses import dataclass
from pathlib import Path

from cliplens.studies import ClassRule


@dataclass(frozen=True, kw_only=True)
class WordsOptions:
    """The options of a study; those of `cliplens words`."""

    pairs: int = 1024
    """Largest number of scored pairs to read."""
    tagger: Path | None = None
    """Table of words and kinds, or folder of NLTK's tagger; None takes TextBlob's lexicon."""
    language: str | None = None
    """Column of the language of each caption; None takes that of emoji, and one language for other pairs."""
    tagged: str = "en"
    """The language whose words are tagged, and with which the others are compared."""
    names_in: tuple[str, ...] = ()
    """Languages to name latents in."""
    vocabulary: Path | None = None
    """Fixed vocabulary for the names: a file of lines, or a folder of WordNet's dict files."""
    rule: ClassRule = "modality"
    """Column of the latent table with the classes."""
    draws: int = 1000
    """Number of bootstrap samples and shuffles."""
    seed: int = 0
    """Seed of all random numbers."""
