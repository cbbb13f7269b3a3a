"""Intruder: among four top samples and one sample the latent is silent on, does the name fit the intruder least?

delphi's intruder test (after Chang et al., "Reading Tea Leaves", 2009) asks for the odd one out without a name; with an
embedding judge the name is what makes a sample odd. Accuracy in [0, 1], chance = 1/5; ties count as misses.
"""

import numpy as np
from jaxtyping import Int

from cliplens.sites import Modality
from cliplens_plugins.autointerp.views import View

SHOWN = 4
"""Top samples beside the intruder."""


def intruder(
    view: View,
    name: str,
    modality: Modality,
    top: Int[np.ndarray, " top"],
    silent: Int[np.ndarray, " silent"],
    rng: np.random.Generator,
    rounds: int = 40,
) -> float:
    """Share of rounds in which the intruder matches the name least; nan with fewer than four top samples."""
    if len(top) < SHOWN or not len(silent):
        return float("nan")
    samples = view.samples[modality]
    inside, outside = view.match(name, samples.exemplars[top]), view.match(name, samples.background[silent])
    found = 0
    for _ in range(rounds):
        found += outside[rng.integers(len(outside))] < rng.choice(inside, SHOWN, replace=False).min()
    return found / rounds
