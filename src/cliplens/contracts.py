"""The abstract classes that plugins implement.

A plugin is a class in any package, named in an entry point. `cliplens.registry` calls the class without arguments and
checks that the instance is of the abstract class of its group.

| entry-point group    | abstract class            | purpose                                                    |
|----------------------|---------------------------|------------------------------------------------------------|
| `cliplens.towers`    | `Tower`                   | opens one side of a model with hooks                       |
| `cliplens.models`    | `ModelSource`             | finds models by name, recognises model objects             |
| `cliplens.metrics`   | `Metric`                  | sees batches, gives columns of the latent table            |
| `cliplens.namers`    | `Namer`                   | names latents                                              |
| `cliplens.scorers`   | `Scorer`                  | tests names on held-out samples                            |
| `cliplens.judges`    | `Judge`                   | an encoder independent of the model studied                |
| `cliplens.generators`| `Generator`               | makes pictures or text from an edited embedding            |
| `cliplens.readers`   | `AttributeReader`         | reads attributes off pictures, to score steering           |
| `cliplens.reports`   | `Reporter`                | writes a report of a run folder                            |
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
"""An optional field of `Batch` that a metric requires: "pairs" (both modalities), "judge" (embeddings by judges),
"truth" (known attributes), "targets" (labels to compare with), "raw" (activations before the dictionary)."""


@dataclass(frozen=True)
class ModelCard:
    """One line of `cliplens models`: a model name, its families, and the level of its hooks."""

    name: str
    pretrained: tuple[str, ...]
    vision_family: str
    text_family: str
    vision_level: HookLevel | None
    text_level: HookLevel | None


@dataclass(frozen=True)
class LoadedModel:
    """A stock model with its preprocess, tokenizer and identity. The module is never altered."""

    module: nn.Module
    """The model, in eval mode. Tower adapters open its sides."""
    preprocess: Callable[[Image.Image], Tensor] | None
    """Turns a PIL image into the model's input [3, height, width]; None: images are given as tensors only."""
    tokenizer: Callable[[Sequence[str]], Tensor] | None
    """Turns captions into token ids [batch, n_ctx]; None: a model without a text tower."""
    identity: ModelIdentity
    """Name and hashes of the model. Make it with `cliplens.hooked.identity_of`."""


class Tower(ABC):
    """Opens one side of a model of one family as a tower with hooks (a `cliplens.hooked.HookedTower`)."""

    family: ClassVar[str]
    """Name of the family, shown in lists and errors."""

    @abstractmethod
    def opens(self, model: nn.Module, side: Side) -> bool:
        """Return whether this adapter can open the given side of the model. Return False for unknown subclasses."""

    @abstractmethod
    def open(self, model: nn.Module, side: Side) -> nn.Module:
        """Return the hooked tower. It shares its weights with the model, which must not be altered."""


class ModelSource(ABC):
    """Loads models by name, and recognises model objects and finds their preprocess, tokenizer and identity.

    `cliplens.load(name)` asks each source `knows(name)` and calls `load` of the first that says True.
    `cliplens.wrap(model)` calls `adopt(model)` of each source until one returns a `LoadedModel`. Tower adapters then
    open its sides.
    """

    @abstractmethod
    def models(self) -> Sequence[ModelCard]:
        """Return the models that can be loaded by name."""

    @abstractmethod
    def knows(self, name: str) -> bool:
        """Return whether `load` can load a model of this name."""

    @abstractmethod
    def load(self, name: str, pretrained: str | None, *, device: torch.device, dtype: torch.dtype) -> LoadedModel:
        """Load a model in eval mode, on the device and in the dtype."""

    def trained_on(self, name: str) -> str:
        """Return what a model was trained on, where it can be used for nothing else; "" for models of wide use."""
        return ""

    @abstractmethod
    def adopt(self, model: nn.Module) -> LoadedModel | None:
        """Return a model object with preprocess, tokenizer and identity; None if this source does not recognise it."""


class Metric(ABC):
    """Scores every latent in one pass over the batches.

    It keeps sums. The result must not depend on the order of batches, or on the order of merges, by more than 1e-12.
    """

    name: ClassVar[str]
    needs: ClassVar[frozenset[Need]]
    """The optional fields of `Batch` that the metric requires. Without them it is skipped, with a note."""

    @abstractmethod
    def update(self, batch: Batch) -> None:
        """Add one batch to the sums."""

    @abstractmethod
    def merge(self, other: "Metric") -> None:
        """Add the sums of another instance of this metric."""

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """Return the sums as tensors (counts int64, sums float64), to save them or send them to another process."""

    @abstractmethod
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Replace the sums by those that `state` returned."""

    @abstractmethod
    def findings(self, decoder: Float[Tensor, "d_sae d_in"] | None) -> Findings:
        """Return columns of the latent table, headline figures and tables, from the sums.

        `decoder` holds the decoder rows of the dictionary; None if they are unknown.
        """


class Namer(ABC):
    """Names latents: one name from images and one from captions."""

    name: ClassVar[str]
    environment: ClassVar[tuple[str, ...]] = ()
    """Environment variables that decide the names. Another value names the latents of a resumed run again."""

    @abstractmethod
    def from_images(self, evidence: Evidence) -> list[Name]:
        """Return one name per latent, from its top images."""

    @abstractmethod
    def from_captions(self, evidence: Evidence) -> list[Name]:
        """Return one name per latent, from its top captions."""


class Scorer(ABC):
    """Tests names on samples that were not used to make them."""

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
        """Return columns and tables about the names. Both lists hold one name per latent.

        `embed` returns the model's final embeddings of texts; None without a text tower. `judges` are independent
        encoders.
        """


class Judge(ABC):
    """An encoder that is independent of the model studied, to judge similarity."""

    name: ClassVar[str]
    embeds_words: ClassVar[bool] = True
    """Whether it can embed any text. If False (stored embeddings of given pairs), it is not used to test names."""

    @abstractmethod
    def embed(
        self, images: Sequence[Image.Image] | None, captions: Sequence[str] | None, ids: Sequence[str]
    ) -> PairedActs:
        """Return unit-norm embeddings, one row per sample; None in place of a modality that it cannot embed."""


class Generator(ABC):
    """Makes pictures from a condition. The same seed and condition give the same picture, bit for bit."""

    name: ClassVar[str]

    @abstractmethod
    def generate(
        self, condition: Float[Tensor, "sample d_embed"], *, seed: int, **options: Any
    ) -> Sequence[Image.Image]:
        """Return one picture per row of the condition."""

    def long_forms(self, prompts: Sequence[str], *, seed: int) -> list[str]:
        """Return prompts in the form that the model was trained on; `seed` draws the parts that are left open.

        This method returns the prompts unchanged.
        """
        return list(prompts)


class AttributeReader(ABC):
    """Reads attributes of pictures, to measure whether steering reached its target and what else it changed."""

    name: ClassVar[str]

    @property
    @abstractmethod
    def values(self) -> Mapping[str, tuple[str, ...]]:
        """The names of the values of each attribute."""

    @abstractmethod
    def read(self, images: Sequence[Image.Image]) -> Mapping[str, Int[np.ndarray, " image"]]:
        """Return, per attribute and picture, the index of its value in `values`."""


class Reporter(ABC):
    """Writes a report of a run folder."""

    name: ClassVar[str]

    @abstractmethod
    def write(self, folder: Path) -> Path:
        """Read the run folder, write the report into it, and return the path of the report."""


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
"""The abstract class of each entry-point group (the name without `cliplens.`)."""

__getattr__ = deprecated_names(__name__, {"Reader": "cliplens.contracts:AttributeReader"})
