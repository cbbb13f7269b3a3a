"""Pairs, ground truth, and the identity of a model and of the data a dictionary was trained on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Int
from PIL import Image

ImageSource = Path | bytes | Image.Image
Sharing = Literal["shared", "image", "text"]


@dataclass(frozen=True)
class Pair:
    """An image and its caption; either may be missing where only one modality is needed."""

    id: str
    image: ImageSource | None
    caption: str | None


@dataclass(frozen=True)
class ModelIdentity:
    """Which model, exactly: what a dictionary or a cache must agree with."""

    name: str
    pretrained: str | None
    weights_sha256: str
    preprocess: str
    preprocess_sha256: str
    tokenizer_sha256: str
    adapters: str | None = None
    """Fine-tuning adapters (LoRA) found in the weights, merged or not; None when there are none."""


@dataclass(frozen=True)
class Provenance:
    """Where a dictionary comes from; travels in its SAELens metadata and in run.toml."""

    model: ModelIdentity
    sites: tuple[str, ...]
    d_in: int
    token: str
    centred: bool
    pairs_sha256: str | None = None


@dataclass(frozen=True)
class GroundTruth:
    """What the pairs really show and say: a value per pair and factor, and which modality carries the factor."""

    ids: tuple[str, ...]
    factors: Mapping[str, Int[np.ndarray, " pair"]]
    values: Mapping[str, tuple[str, ...]]
    sharing: Mapping[str, Sharing]

    def rows(self, ids: Sequence[str]) -> dict[str, Int[np.ndarray, " row"]]:
        """The factor values of the pairs named, in their order."""
        place = np.array([self._place[i] for i in ids], dtype=np.int64)
        return {name: values[place] for name, values in self.factors.items()}

    @cached_property
    def _place(self) -> dict[str, int]:
        return {i: n for n, i in enumerate(self.ids)}
