"""What every vision tower does: takes images, or ids of images where a source of images is attached."""

from collections.abc import Callable
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

ImageLookup = Callable[[Int[Tensor, " batch"]], Float[Tensor, "batch 3 height width"]]


class HookedVisionTower(HookedTower):
    """A tower over images.

    SAELens feeds models integer tokens only. Attach an `image_source` and the tower takes *image tokens*: one row per
    image, position 0 holding 0 (the class token's id) and every other position the image's number plus one, so that
    `context_size`, `seqpos_slice` and `exclude_special_tokens=[0]` mean what they mean for text.
    """

    image_source: ImageLookup | None
    preprocess: Callable[[Image.Image], Tensor] | None
    tokenizer: None

    def __init__(self, stock: nn.Module, cfg: TowerConfig) -> None:
        super().__init__(stock, cfg)
        borrow(self, image_source=None, preprocess=None, tokenizer=None)
        self.hook_patch_embed = hook_point(cfg.d_model)

    def image_tokens(self, numbers: Int[Tensor, " batch"]) -> Int[Tensor, "batch pos"]:
        """Image tokens for images by their number in the attached source."""
        tokens = (numbers + 1).unsqueeze(1).repeat(1, self._cfg.n_ctx)
        tokens[:, : self.n_special] = 0
        return tokens

    def to_tokens(self, numbers: Int[Tensor, " batch"], **ignored: object) -> Int[Tensor, "batch pos"]:
        """The same under TransformerLens' name."""
        return self.image_tokens(numbers)

    def checked(self, inputs: Inputs) -> Float[Tensor, "batch 3 height width"]:
        """Return images on the device of the weights.

        Pictures are put through the model's preprocess first; image tokens are looked up.

        Raises:
            InputError: `inputs` are no images of the right size, no pictures and no image tokens.
        """
        if not isinstance(inputs, Tensor):
            inputs = self._preprocessed(inputs)
        if not inputs.is_floating_point():
            inputs = self._looked_up(inputs)
        size = self._cfg.image_size
        if inputs.ndim != 4 or inputs.shape[1] != 3 or (size is not None and tuple(inputs.shape[2:]) != size):
            raise InputError(
                expected=f"preprocessed images, float [batch, 3, {size[0]}, {size[1]}]"
                if size
                else "float [batch, 3, h, w]",
                found=f"{inputs.dtype} {list(inputs.shape)}",
                fix="put each PIL image through clip.preprocess and stack them",
            )
        return inputs.to(device=self.device, dtype=self.input_dtype)

    def special_position(self, inputs: Tensor) -> Int[Tensor, " batch"]:
        """Position 0, where the class token stands.

        Raises:
            InputError: this tower has no class token.
        """
        if self.n_special == 0:
            raise InputError(
                expected="a vision tower with a class token",
                found=f"{self._cfg.model_name or self._cfg.family}, which pools its patches",
                fix="choose the token 'mean' or 'patches', or read hook_pooled or hook_embedding",
            )
        return torch.zeros(len(inputs), dtype=torch.int64, device=inputs.device)

    def _preprocessed(self, pictures: Any) -> Tensor:
        given = [pictures] if isinstance(pictures, Image.Image) else pictures
        if isinstance(given, str) or not all(isinstance(picture, Image.Image) for picture in given):
            raise InputError(
                expected="preprocessed images or PIL pictures for the vision tower",
                found=f"{type(pictures).__name__} {str(pictures)[:60]!r}",
                fix="open files with PIL.Image.open; captions go to clip.text",
            )
        if self.preprocess is None or not given:
            raise InputError(
                expected="one picture or more, and a model with a preprocess for them",
                found="no pictures" if not given else f"{len(given)} pictures and no preprocess",
                fix="give one with cliplens.wrap(model, preprocess=...), or pass preprocessed images",
            )
        return torch.stack([self.preprocess(picture) for picture in given])

    def _looked_up(self, tokens: Tensor) -> Tensor:
        if self.image_source is None:
            raise InputError(
                expected="float images [batch, 3, height, width] for the vision tower",
                found=f"integers, {tokens.dtype} {list(tokens.shape)}",
                fix="preprocess images, or attach clip.vision.image_source to look images up by number",
            )
        alike = tokens.ndim == 2 and bool((tokens[:, 1:] == tokens[:, -1:]).all()) and bool((tokens[:, -1] > 0).all())
        if not alike:
            raise InputError(
                expected="image tokens: [batch, pos], every position but the first holding the image's number plus one",
                found=f"{list(tokens.shape)} with other contents",
                fix="make them with clip.vision.image_tokens(numbers)",
            )
        return self.image_source(tokens[:, -1].cpu() - 1)
