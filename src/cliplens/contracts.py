"""What a plugin implements. Each contract is an abstract class with no implemented method to override.

A plugin is a class named in an entry point of its own package; `cliplens.registry` makes one instance, without
arguments, and checks it against the contract.

| entry-point group    | contract                  | what it is                                                 |
|----------------------|---------------------------|------------------------------------------------------------|
| `cliplens.towers`    | `Tower`                   | opens one side of a model with hooks                       |
| `cliplens.models`    | `ModelSource`             | finds models by name, recognises model objects             |
| `cliplens.metrics`   | `Metric`                  | sees batches, gives columns of the latent table            |
| `cliplens.namers`    | `Namer`                   | says in words what a latent is                             |
| `cliplens.scorers`   | `Scorer`                  | tests those words on samples they were not made from       |
| `cliplens.judges`    | `Judge`                   | an encoder independent of the model studied                |
| `cliplens.generators`| `Generator`               | makes pictures or text from an edited embedding            |
| `cliplens.readers`   | `AttributeReader`         | reads attributes off pictures, to score steering           |
| `cliplens.reports`   | `Reporter`                | turns a run folder into something to look at               |
| `cliplens.commands`  | a `typer.Typer`           | a command of the command line                              |
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor, nn

from cliplens.deprecation import deprecated_names
from cliplens.records import Batch, Evidence, Findings, ModelIdentity, Name, PairedActs
from cliplens.sites import Side

HookLevel = Literal["heads", "blocks", "stages"]
"""How deep hooks go: attention heads (everything), blocks of a transformer, or stages of a convolutional tower."""
Need = Literal["pairs", "judge", "truth", "targets", "raw"]
"""An optional part of a batch that a metric cannot do without."""


@dataclass(frozen=True)
class ModelCard:
    """A line of `cliplens models`: what a name opens, and how deep its hooks go."""

    name: str
    pretrained: tuple[str, ...]
    vision_family: str
    text_family: str
    vision_level: HookLevel | None
    text_level: HookLevel | None


@dataclass(frozen=True)
class LoadedModel:
    """A stock model with what belongs to it. The module is never altered."""

    module: nn.Module
    preprocess: Callable[[Image.Image], Tensor] | None
    tokenizer: Callable[[Sequence[str]], Tensor] | None
    identity: ModelIdentity


class Tower(ABC):
    """Opens one side of a model of one family as a tower with hooks (a `cliplens.hooked.HookedTower`)."""

    family: ClassVar[str]

    @abstractmethod
    def opens(self, model: nn.Module, side: Side) -> bool:
        """Return whether this adapter knows the given side of the model."""

    @abstractmethod
    def open(self, model: nn.Module, side: Side) -> nn.Module:
        """Return the hooked tower, its weights shared with the model, the model itself unaltered."""


class ModelSource(ABC):
    """Finds models by name, and recognises model objects it can complete with preprocess, tokenizer and identity."""

    @abstractmethod
    def models(self) -> Sequence[ModelCard]:
        """Return the models that can be loaded by name."""

    @abstractmethod
    def knows(self, name: str) -> bool:
        """Return whether `load` understands the name."""

    @abstractmethod
    def load(self, name: str, pretrained: str | None, *, device: torch.device, dtype: torch.dtype) -> LoadedModel:
        """Return the model, in eval mode, on the device, in the dtype."""

    @abstractmethod
    def adopt(self, model: nn.Module) -> LoadedModel | None:
        """Complete a model object made elsewhere; return None when this source does not recognise it."""


class Metric(ABC):
    """Sees every batch once and keeps sums that merge: no order of batches or of merges may matter beyond 1e-12."""

    name: ClassVar[str]
    needs: ClassVar[frozenset[Need]]
    """What batches must carry: both modalities, judge embeddings, ground truth, something asked about the pairs, raw
    activations. Skipped, with a note, where missing."""

    @abstractmethod
    def update(self, batch: Batch) -> None:
        """Take one batch in."""

    @abstractmethod
    def merge(self, other: "Metric") -> None:
        """Take in what another instance of this metric has seen."""

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """Return everything seen so far as tensors (counts int64, sums float64), to save or to send."""

    @abstractmethod
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what `state` gave."""

    @abstractmethod
    def findings(self, decoder: Float[Tensor, "d_sae d_in"] | None) -> Findings:
        """Return columns, figures and tables of everything seen so far."""


class Namer(ABC):
    """Names latents, from images and from captions apart."""

    name: ClassVar[str]

    @abstractmethod
    def from_images(self, evidence: Evidence) -> list[Name]:
        """Return one name per latent, from its top images."""

    @abstractmethod
    def from_captions(self, evidence: Evidence) -> list[Name]:
        """Return one name per latent, from its top captions."""


class Scorer(ABC):
    """Tests names on samples that no name was made from."""

    name: ClassVar[str]

    @abstractmethod
    def score(
        self,
        from_images: Sequence[Name],
        from_captions: Sequence[Name],
        evidence: Evidence,
        embed: Callable[[Sequence[str]], Float[Tensor, "text d_embed"]] | None,
        judges: Sequence["Judge"] = (),
    ) -> Findings:
        """Return columns and tables about the names, one of each list per latent.

        `embed` gives the model's own final embedding of any text; None without a text tower. `judges` are independent.
        """


class Judge(ABC):
    """An encoder independent of the model studied. Embeddings are unit-norm rows; None where it has no such side."""

    name: ClassVar[str]
    embeds_words: ClassVar[bool] = True
    """Whether it embeds any text, not only that of given pairs. Only then is it asked about names."""

    @abstractmethod
    def embed(
        self, images: Sequence[Image.Image] | None, captions: Sequence[str] | None, ids: Sequence[str]
    ) -> PairedActs:
        """Embeddings of the given samples."""


class Generator(ABC):
    """Makes samples from a condition; the same seed and condition give the same sample, bit for bit."""

    name: ClassVar[str]

    @abstractmethod
    def generate(
        self, condition: Float[Tensor, "sample d_embed"], *, seed: int, **options: Any
    ) -> Sequence[Image.Image]:
        """Return one picture per row of the condition."""


class AttributeReader(ABC):
    """Reads attributes off pictures, to measure whether steering reached its target and what else changed."""

    name: ClassVar[str]

    @property
    @abstractmethod
    def values(self) -> Mapping[str, tuple[str, ...]]:
        """Return the names of the values of each attribute."""

    @abstractmethod
    def read(self, images: Sequence[Image.Image]) -> Mapping[str, Int[np.ndarray, " image"]]:
        """Return, per attribute and picture, the index of its value in `values`."""


class Reporter(ABC):
    """Turns a run folder into something to look at."""

    name: ClassVar[str]

    @abstractmethod
    def write(self, folder: Path) -> Path:
        """Read the run folder, write the report into it, return its path."""


CONTRACTS: dict[str, type] = {
    "towers": Tower,
    "models": ModelSource,
    "metrics": Metric,
    "namers": Namer,
    "scorers": Scorer,
    "judges": Judge,
    "generators": Generator,
    "readers": AttributeReader,
    "reports": Reporter,
}
"""Entry-point group, without `cliplens.` -> the contract its plugins keep."""

__getattr__ = deprecated_names(__name__, {"Reader": "cliplens.contracts:AttributeReader"})
