"""Get the modality classes of latents: from the table of a run, or computed for any dictionary on activations."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Float

from cliplens import registry
from cliplens.errors import InputError
from cliplens.records import LatentTable, PairedActs
from cliplens.sae import Dictionary
from cliplens.tally import tally

ClassRule = Literal["modality", "modality_paper", "modality_significant"]
CLASS_RULES: tuple[str, ...] = get_args(ClassRule)
"""Columns of the latent table with a class per latent: by fixed cuts, by the paper's rule, or significant ones only."""


@dataclass(frozen=True)
class ScoredClasses:
    """The class and the firing rate of each latent."""

    classes: np.ndarray
    """[latent], numpy strings: ImgD, TextD, CrossD, undecided or dead."""
    rates: Float[np.ndarray, " d_sae"]
    """Mean of the shares of images and of captions the latent fires on, in [0, 1]."""

    @property
    def alive(self) -> Bool[np.ndarray, " d_sae"]:
        """Mask of the latents that fire."""
        return self.classes != "dead"


def classes_of_table(table: LatentTable, rule: ClassRule = "modality") -> ScoredClasses:
    """Return the classes and firing rates in the table of a run.

    Raises:
        InputError: the table has no such column, because the run read one modality only.
    """
    if rule not in table:
        raise InputError(
            expected=f"a run of images and captions, whose table has the column {rule!r}",
            found=f"the columns {', '.join(list(table)[:8])}, ...",
            fix="make a run with both towers: cliplens run --tower both",
        )
    rates = np.nan_to_num(np.stack([table["fire_image"], table["fire_text"]]).astype(np.float64))
    return ScoredClasses(table[rule].astype(str), rates.mean(0))


def score_classes(
    dictionary: Dictionary, acts: PairedActs | Sequence[PairedActs], rule: ClassRule = "modality"
) -> ScoredClasses:
    """Compute the classes of the latents of a dictionary on these activations, with the metric `mds` of a run.

    Args:
        dictionary: any dictionary that reads both modalities.
        acts: raw activations of both modalities, in one batch or several.
        rule: column of the metric, one of `CLASS_RULES`.
    """
    batches = [acts] if isinstance(acts, PairedActs) else acts
    metric = registry.find("metrics", "mds").load()
    replicates = {} if rule == "modality_significant" else {"n_replicates": 0}
    found = tally((dictionary.batch(batch) for batch in batches), [metric(**replicates)], decoder=None)
    return classes_of_table(found.table, rule)


def resampled_classes(
    dictionary: Dictionary, acts: PairedActs, draws: int, *, rule: ClassRule = "modality", seed: int = 0
) -> list[ScoredClasses]:
    """Return the classes computed from bootstrap samples of the pairs, one result per draw.

    Args:
        dictionary: any dictionary that reads both modalities.
        acts: raw activations of the pairs that made the classes.
        draws: number of samples, each as large as the pairs, drawn with replacement.
        rule: column of the metric, one of `CLASS_RULES`.
        seed: seed of the draws.
    """
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(draws):
        rows = rng.integers(0, len(acts), len(acts))
        image, text = (None if a is None else a[rows] for a in (acts.image, acts.text))
        drawn = PairedActs(tuple(f"draw-{n}" for n in range(len(rows))), image, text)
        found.append(score_classes(dictionary, drawn, rule))
    return found
