"""Make the control of every study: an untrained dictionary to compute the same figures with."""

from cliplens.records import PairedActs
from cliplens.sae import Dictionary, untrained_twin
from cliplens.sites import MODALITIES
from cliplens.studies.classes import ClassRule, ScoredClasses, score_classes


def twin_of(
    dictionary: Dictionary, acts: PairedActs, *, rule: ClassRule = "modality", seed: int = 0
) -> tuple[Dictionary, ScoredClasses]:
    """Return an untrained dictionary that fires as many latents per row, and the classes of its latents on the pairs.

    Args:
        dictionary: the trained dictionary.
        acts: raw activations of pairs at its sites.
        rule: rule of the classes, one of `CLASS_RULES`.
        seed: seed of the random rows.
    """
    codes = dictionary.encode(acts)
    sides = [c for m in MODALITIES if (c := codes.of(m)) is not None]
    fired, rows = sum(len(c.rows) for c in sides), sum(c.n_rows for c in sides)
    twin = untrained_twin(dictionary, max(1, round(fired / max(rows, 1))), seed=seed)
    return twin, score_classes(twin, acts, rule)
