"""Labelled pictures, as a reader of a data set gives them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int64

from cliplens.hooked import TEMPLATES


@dataclass(frozen=True)
class LabelledPictures:
    """Pictures with a group and a target each, and the words that name them in prompts."""

    name: str
    paths: tuple[Path, ...]
    group: Int64[np.ndarray, " picture"]
    target: Int64[np.ndarray, " picture"]
    group_words: tuple[str, ...]
    target_words: tuple[str, ...]
    train: Bool[np.ndarray, " picture"]
    templates: tuple[str, ...] = TEMPLATES
    """Sentences with `{}` in place of a word, in the style of the captions that the model knows."""
