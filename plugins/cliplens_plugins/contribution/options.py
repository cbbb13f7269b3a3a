"""The options of a study of contributions."""

from dataclasses import dataclass
from pathlib import Path

from cliplens.studies import Baseline, ClassRule


@dataclass(frozen=True, kw_only=True)
class ContributionOptions:
    """The options of a study; those of `cliplens contribution`."""

    pairs: int = 512
    """Number of scored pairs to test on."""
    labels: str | None = None
    """Column of labels of the pairs, or a factor of the world."""
    labelled: Path | None = None
    """Folder with one subfolder of pictures per class."""
    function: str | None = None
    """MODULE:NAME of a further task on the pairs."""
    rule: ClassRule = "modality"
    """Column of the latent table with the classes."""
    baseline: Baseline = "mean"
    """Replacement of removed parts: "mean" or "zero"."""
    controls: int = 20
    """Number of random sets of latents per class."""
    resamples: int = 20
    """Number of bootstrap samples of the pairs that the classes were computed from."""
    seed: int = 0
    """Seed of all random numbers."""
