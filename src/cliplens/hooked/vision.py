"""The base class of vision towers. They take images, or indices of images in an attached source."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor, nn

from cliplens.errors import InputError
from cliplens.hooked.base import Inputs
from cliplens.hooked.config import TowerConfig
from cliplens.hooked.part import borrow, hook_point
from cliplens.hooked.tower import HookedTower
from cliplens.hooked.weight_views import patch_weights
from cliplens.shapes import TowerInputs

ImageLookup = Callable[[Int[Tensor, " batch"]], Float[Tensor, "batch 3 height width"]]


def patch_grid(n: int, image_size: tuple[int, int] | None) -> tuple[int, int] | None:
    """Return the rows and columns of n patches in the proportions of the image; None if they form no such rectangle.

    >>> patch_grid(49, (224, 224))
    (7, 7)
    """
    height, width = image_size or (1, 1)
    rows = round((n * height / width) ** 0.5)
    return (rows, n // rows) if rows and n % rows == 0 and rows * width == (n // rows) * height else None


class HookedVisionTower(HookedTower):
    """A tower whose inputs are images.

    SAELens passes integer tokens only. With an `image_source` attached, the tower takes *image tokens*: one row per
    image, with 0 (the id of the class token) at position 0 and the index of the image plus one at every other position.
    So `context_size`, `seqpos_slice` and `exclude_special_tokens=[0]` have the same meaning as for text.
    """

    image_source: ImageLookup | None
    preprocess: Callable[[Image.Image], Tensor] | None
    tokenizer: None

    def __init__(self, stock: nn.Module, cfg: TowerConfig) -> None:
        super().__init__(stock, cfg)
        borrow(self, image_source=None, preprocess=None, tokenizer=None)
        self.hook_patch_embed = hook_point(cfg.d_model)

    @property
    def W_E(self) -> Float[Tensor, "pixel d_model"]:
        """The patch embedding: from the pixels of a patch (channel, then row, then column) to the stream.

        Raises:
            InputError: the patches are not embedded by one convolution.
        """
        found = patch_weights(self.stock, self._cfg.d_model)
        if found is None:
            raise InputError(
                expected="a tower that embeds patches by one convolution",
                found=f"{self._cfg.model_name or self._cfg.family}, which does not",
                fix="read hook_patch_embed instead",
            )
        return found

    def blank_input(self) -> Float[Tensor, "1 3 height width"]:
        """Return one black image."""
        return torch.zeros(1, 3, *(self._cfg.image_size or (224, 224)), dtype=self.input_dtype, device=self.device)

    def to_str_tokens(self, images: object = None) -> list[str]:
        """Return the name of each position: "CLS", "REG1", ... and "row,column" of a patch, as a cache holds them."""
        n = self._cfg.n_ctx - self.n_special
        rows, columns = patch_grid(n, self._cfg.image_size) or (1, n)
        special = ["CLS", *(f"REG{i}" for i in range(1, self.n_special))][: self.n_special]
        return [*special, *(f"{row},{column}" for row in range(rows) for column in range(columns))]

    def image_tokens(self, numbers: Int[Tensor, " batch"]) -> Int[Tensor, "batch pos"]:
        """Return the image tokens of images, given by their indices in the attached source."""
        tokens = (numbers + 1).unsqueeze(1).repeat(1, self._cfg.n_ctx)
        tokens[:, : self.n_special] = 0
        return tokens

    def to_tokens(self, numbers: Int[Tensor, " batch"], **ignored: object) -> Int[Tensor, "batch pos"]:
        """Return image tokens: the same as `image_tokens`, under TransformerLens' name."""
        return self.image_tokens(numbers)

    def checked(self, inputs: Inputs) -> Float[Tensor, "batch 3 height width"]:
        """Return images on the device of the weights.

        PIL images are preprocessed first. Image tokens are looked up in the source.

        Raises:
            InputError: `inputs` are neither images of the right size nor PIL images nor image tokens.
        """
        if not isinstance(inputs, Tensor):
            inputs = self._preprocessed(inputs)
        if not inputs.is_floating_point():
            inputs = self._looked_up(inputs)
        size = self._cfg.image_size
        if (
            inputs.ndim != 4
            or not len(inputs)
            or inputs.shape[1] != 3
            or (size is not None and tuple(inputs.shape[2:]) != size)
        ):
            raise InputError(
                expected=f"preprocessed images, float [batch, 3, {size[0]}, {size[1]}]"
                if size
                else "float [batch, 3, h, w]",
                found=f"{inputs.dtype} {list(inputs.shape)}",
                fix="preprocess each PIL image with clip.preprocess and stack the results",
            )
        return inputs.to(device=self.device, dtype=self.input_dtype)

    def special_position(self, inputs: TowerInputs) -> Int[Tensor, " batch"]:
        """Return position 0, the position of the class token, for every image.

        Raises:
            InputError: this tower has no class token.
        """
        if not self.has_class_token:
            raise InputError(
                expected="a vision tower with a class token",
                found=f"{self._cfg.model_name or self._cfg.family}, which pools its patches",
                fix="pass token='mean' or token='patches', or read hook_pooled or hook_embedding",
            )
        return torch.zeros(len(inputs), dtype=torch.int64, device=inputs.device)

    def _preprocessed(self, pictures: Any) -> Tensor:
        given = [pictures] if isinstance(pictures, Image.Image) else pictures
        are_pictures = isinstance(given, Iterable) and all(isinstance(picture, Image.Image) for picture in given)
        if isinstance(given, str) or not are_pictures:
            raise InputError(
                expected="preprocessed images or PIL pictures for the vision tower",
                found=f"{type(pictures).__name__} {str(pictures)[:60]!r}",
                fix="open files with PIL.Image.open; pass captions to clip.text",
            )
        if self.preprocess is None or not given:
            raise InputError(
                expected="at least one picture, and a model with a preprocess",
                found="no pictures" if not given else f"{len(given)} pictures and no preprocess",
                fix="pass it: cliplens.wrap(model, preprocess=...), or pass preprocessed images",
            )
        return torch.stack([self.preprocess(picture) for picture in given])

    def _looked_up(self, tokens: Tensor) -> Tensor:
        if self.image_source is None:
            raise InputError(
                expected="float images [batch, 3, height, width] for the vision tower",
                found=f"integers, {tokens.dtype} {list(tokens.shape)}",
                fix="preprocess the images, or set clip.vision.image_source to pass indices of images",
            )
        alike = tokens.ndim == 2 and bool((tokens[:, 1:] == tokens[:, -1:]).all()) and bool((tokens[:, -1] > 0).all())
        if not alike:
            raise InputError(
                expected="image tokens [batch, pos]: 0 at the first position, the image's index plus one at the others",
                found=f"{list(tokens.shape)} with other values",
                fix="make them with clip.vision.image_tokens(numbers)",
            )
        return self.image_source(tokens[:, -1].cpu() - 1)
