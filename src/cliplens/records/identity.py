"""Pairs, ground truth, and the identity of a model and of the data a dictionary was trained on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Int
from PIL import Image

from cliplens.errors import BadPairError, BadPictureError
from cliplens.keys import first_id
from cliplens.pictures import AS_SEEN, PictureOptions, PictureSource, open_picture

ImageSource = PictureSource
Sharing = Literal["shared", "image", "text"]


@dataclass(frozen=True)
class Pair:
    """An image and its caption. Either may be missing where only one modality is needed.

    >>> pair = Pair("cat.jpg#1", Image.new("L", (8, 8)), "a cat")
    >>> pair.image.mode, pair.image_id
    ('RGB', 'cat.jpg')
    """

    id: str
    source: ImageSource | None
    """Source of the image: a file, bytes, or a picture in memory. `image` opens it."""
    caption: str | None
    image_id: str = ""
    """Equal for pairs of the same picture; by default the id without the `#1`, `#2`, ... of further captions."""
    caption_id: str = ""
    """Equal for pairs of the same caption; by default the id."""
    caption_problem: str | None = None
    """Reason why the caption cannot be used, if it is known."""
    opening: PictureOptions = AS_SEEN
    """How the image is opened."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "image_id", self.image_id or first_id(self.id))
        object.__setattr__(self, "caption_id", self.caption_id or self.id)

    @property
    def image(self) -> Image.Image | None:
        """The picture as RGB, opened at each access; None when the pair has no image.

        Raises:
            BadPairError: the picture cannot be opened.
        """
        if self.source is None:
            return None
        try:
            return open_picture(self.source, self.opening)
        except BadPictureError as error:
            raise BadPairError(self.id, error.reason) from error


@dataclass(frozen=True)
class ModelIdentity:
    """The identity of a model: its name, and hashes that dictionaries and caches are compared with."""

    name: str
    pretrained: str | None
    weights_sha256: str
    preprocess: str
    preprocess_sha256: str
    tokenizer_sha256: str
    adapters: str | None = None
    """Fine-tuning adapters (LoRA) found in the weights, merged or not; None without any."""


@dataclass(frozen=True)
class Provenance:
    """The origin of a dictionary. It is stored in its SAELens metadata and in run.toml."""

    model: ModelIdentity
    sites: tuple[str, ...]
    d_in: int
    token: str
    centred: bool
    pairs_sha256: str | None = None


@dataclass(frozen=True)
class GroundTruth:
    """Known factors of the pairs: a value per pair and factor, and the modality that carries each factor."""

    ids: tuple[str, ...]
    factors: Mapping[str, Int[np.ndarray, " pair"]]
    values: Mapping[str, tuple[str, ...]]
    sharing: Mapping[str, Sharing]

    def rows(self, ids: Sequence[str]) -> dict[str, Int[np.ndarray, " row"]]:
        """Return the factor values of the pairs named, in their order."""
        place = np.array([self._place[i] for i in ids], dtype=np.int64)
        return {name: values[place] for name, values in self.factors.items()}

    @cached_property
    def _place(self) -> dict[str, int]:
        return {i: n for n, i in enumerate(self.ids)}
