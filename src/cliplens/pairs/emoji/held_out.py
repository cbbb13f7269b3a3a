"""Say what the embedded model of real drawings never saw: by hash, so that it is the same for ever and everywhere."""

import numpy as np

from cliplens.keys import hashed_uniform, pair_keys
from cliplens.pairs.emoji.catalogue import Drawing

CONCEPTS = 0.135
"""Share of the concepts, without the professions, that is kept from training."""
CELLS = 0.15
"""Share of the cells of profession x gender x skin tone that is kept from training."""
_CONCEPT_SEED = 1601
_CELL_SEED = 1602


def is_unseen_concept(drawing: Drawing) -> bool:
    """Return whether the concept was kept from training, in every artist's hand and every language."""
    return drawing.profession == "none" and _drawn(drawing.concept, _CONCEPT_SEED) < CONCEPTS


def is_unseen_cell(drawing: Drawing) -> bool:
    """Return whether this profession was kept from training in this gender and skin tone, by whichever artist."""
    cell = f"{drawing.profession}|{drawing.gender}|{drawing.skin_tone}"
    return drawing.profession != "none" and _drawn(cell, _CELL_SEED) < CELLS


def is_unseen(drawing: Drawing) -> bool:
    """Return whether the drawing was kept from training."""
    return is_unseen_concept(drawing) or is_unseen_cell(drawing)


def _drawn(text: str, seed: int) -> float:
    uniform: np.ndarray = hashed_uniform(pair_keys([text]), seed)
    return float(uniform[0])
