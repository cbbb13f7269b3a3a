"""Test names on held-out samples with any judge, with shuffled names as the control.

- detection: does the name match top samples better than samples on which the latent is silent? AUROC, chance 0.5. As
  in EleutherAI's delphi (https://github.com/EleutherAI/delphi), but with a graded match, so no threshold is chosen.
- fuzzing: does the name match top samples better than near misses (see `near_misses`)? AUROC, chance 0.5.
- intruder: among four top samples and a silent one, does the silent one match least? Accuracy, chance 0.2; ties count
  as errors. In delphi (after Chang et al., "Reading Tea Leaves", 2009) the judge sees no name; here the judge sees only
  the name.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from cliplens.records import Name
from cliplens.sites import MODALITIES, Modality
from cliplens.statistics import mean_interval

TESTS = ("detection", "fuzzing", "intruder")
CHANCE = {"detection": 0.5, "fuzzing": 0.5, "intruder": 0.2}
SAMPLES: dict[Modality, str] = {"image": "images", "text": "captions"}
Names = Sequence[str | None]
"""One name per latent; None for a latent without one."""
Scores = Mapping[str, Float[np.ndarray, " d_sae"]]
"""The score of each latent's name, by test; nan where a name was not tested."""


class NameJudge(ABC):
    """Scores names on samples. Subclasses define how a name is matched with a sample."""

    judge: str
    """Name of the judge, for the table."""
    circular: bool = False
    """Whether the judge is the model studied."""
    modalities: Sequence[Modality]
    """The modalities whose samples the judge sees."""

    @abstractmethod
    def scores(self, lists: Sequence[Names], target: Modality) -> list[Scores]:
        """Return the scores of all tests for each list of names, on samples of the modality `target`."""


@dataclass(frozen=True)
class NameTest:
    """Result of one test: all names from modality `source` on samples of modality `target`, and the shuffled names."""

    judge: str
    circular: bool
    test: str
    source: Modality
    target: Modality
    scores: Float[np.ndarray, " d_sae"]
    shuffled: Float[np.ndarray, " d_sae"]

    def row(self) -> dict[str, Any]:
        """Return a table row: the mean over names with its confidence interval, and the same for shuffled names."""
        mean, low, high = mean_interval(self.scores)
        control, control_low, control_high = mean_interval(self.shuffled)
        return {
            "test": self.test,
            "named from": SAMPLES[self.source],
            "tested on": SAMPLES[self.target],
            "judge": self.judge + (" (circular)" if self.circular else ""),
            "names": int((~np.isnan(self.scores)).sum()),
            "score": mean,
            "95 % interval": f"{low:.3f} to {high:.3f}",
            "chance": CHANCE[self.test],
            "shuffled names": control,
            "shuffled interval": f"{control_low:.3f} to {control_high:.3f}",
        }


def tested_names(judge: NameJudge, given: Mapping[Modality, Names], seed: int) -> list[NameTest]:
    """Run all tests of the names from each modality on the samples of each modality that the judge sees.

    Args:
        judge: scores names.
        given: names of all latents, by the modality that they were made from.
        seed: seed of the shuffled names.
    """
    lists = [names for source in MODALITIES for names in (given[source], shuffle_names(given[source], seed))]
    found = {target: judge.scores(lists, target) for target in judge.modalities}
    return [
        NameTest(
            judge.judge,
            judge.circular,
            test,
            source,
            target,
            found[target][2 * n][test],
            found[target][2 * n + 1][test],
        )
        for test in TESTS
        for n, source in enumerate(MODALITIES)
        for target in judge.modalities
    ]


def names_of(
    from_images: Sequence[Name], from_captions: Sequence[Name], alive: Bool[np.ndarray, " latent"]
) -> dict[Modality, list[str | None]]:
    """Return the names of living latents, by the modality that they were made from; None without a name."""
    return {
        "image": living_names([n.text for n in from_images], alive),
        "text": living_names([n.text for n in from_captions], alive),
    }


def living_names(names: Sequence[str | None], alive: Bool[np.ndarray, " latent"]) -> list[str | None]:
    """Replace the names of dead latents with None."""
    return [name if lives else None for name, lives in zip(names, alive, strict=True)]


def shuffle_names(names: Names, seed: int = 0) -> list[str | None]:
    """Assign the names to other latents, as a control.

    Every named latent gets a name that differs from its own, or None if all names are equal.

    >>> shuffle_names(["red", None, "blue"])
    ['blue', None, 'red']
    """
    named = [k for k, n in enumerate(names) if n is not None]
    rng = np.random.default_rng(seed)
    shuffled: list[str | None] = [None] * len(names)
    order = rng.permutation(named)
    if len({names[k] for k in named}) < 2:
        return shuffled
    for place, k in enumerate(named):
        others = (str(names[order[(place + step) % len(order)]]) for step in range(len(order)))
        shuffled[k] = next((n for n in others if n != names[k]), None)
    return shuffled
