"""The preprocess of a Hugging Face folder: its own image processor with all options."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import transformers
from PIL import Image
from torch import Tensor, nn

from cliplens.errors import InputError, MismatchError
from cliplens_hooks.models.open_clip import describe, preprocess_of

HALF = (0.5, 0.5, 0.5)
FILES = ("preprocessor_config.json", "processor_config.json")
_NO_PIXELS = ("_processor_class", "feature_extractor_type", "processor_class", "image_processor_type", "device")
_FILTERS = {0: "nearest", 2: "bilinear", 3: "bicubic"}


class TransformersPreprocess:
    """A transformers image processor as a preprocess: one picture to [3, height, width], float32.

    Its `repr` is the configuration, which is part of the model's identity.
    """

    def __init__(self, processor: Any) -> None:
        self.processor = processor

    def __call__(self, image: Image.Image) -> Tensor:
        pixels = self.processor(images=image.convert("RGB"), return_tensors="pt")["pixel_values"]
        return pixels[0].float()

    def __repr__(self) -> str:
        options = {k: v for k, v in self.processor.to_dict().items() if v is not None and k not in _NO_PIXELS}
        return json.dumps({"transformers": options}, sort_keys=True, default=str)


def preprocess_at(
    place: str, options: dict[str, Any], kind: str, model: nn.Module
) -> tuple[Callable[[Image.Image], Tensor], str]:
    """Return the preprocess of a folder or repository, and its description.

    Without a configuration, the usual steps of the family are used.

    Raises:
        InputError: the configuration cannot be read.
        MismatchError: its images have another size than the model expects.
    """
    try:
        processor = transformers.AutoImageProcessor.from_pretrained(place, **options)
    except (OSError, ValueError, ImportError, KeyError, TypeError, AttributeError) as error:
        folder = Path(place) / options.get("subfolder", "")
        there = [name for name in FILES if (folder / name).is_file()]
        if there:
            raise InputError(
                expected=f"an image processor's configuration in {folder / there[0]}",
                found=f"{type(error).__name__}: {' '.join(str(error).split())[:160]}",
                fix="correct the file, or remove it to take the family's usual preprocessing",
            ) from error
        return usual(kind, model)
    if "Siglip2" in type(processor).__name__:
        warnings.warn(f"{place} takes pictures of any shape; here they are resized to a square", stacklevel=6)
        return _from_cfg({**_usual_cfg(kind, model), **_numbers(processor)})
    preprocess = TransformersPreprocess(processor)
    _check_size(preprocess, model, place)
    return preprocess, repr(preprocess)


def usual(kind: str, model: nn.Module) -> tuple[Callable[[Image.Image], Tensor], str]:
    """Return the default preprocess of a family, and its description."""
    return _from_cfg(_usual_cfg(kind, model))


def _usual_cfg(kind: str, model: nn.Module) -> dict[str, Any]:
    cfg: dict[str, Any] = {"size": tuple(model.visual.image_size)}  # type: ignore[union-attr,arg-type]
    if not kind.startswith("clip"):
        cfg |= {"mean": HALF, "std": HALF, "resize_mode": "squash"}
    return cfg


def _numbers(processor: Any) -> dict[str, Any]:
    found = {"mean": tuple(processor.image_mean), "std": tuple(processor.image_std)}
    resample = _FILTERS.get(int(processor.resample)) if processor.resample is not None else None
    return {**found, **({"interpolation": resample} if resample in ("bilinear", "bicubic") else {})}


def _from_cfg(cfg: dict[str, Any]) -> tuple[Callable[[Image.Image], Tensor], str]:
    return preprocess_of(cfg), describe(cfg)


def _check_size(preprocess: TransformersPreprocess, model: nn.Module, place: str) -> None:
    picture = Image.fromarray(np.zeros((48, 80, 3), dtype=np.uint8))
    visual: Any = model.visual
    wanted = (3, *visual.image_size)
    try:
        found = tuple(preprocess(picture).shape)
    except Exception as error:
        raise InputError(
            expected=f"a preprocessor configuration of {place} that works on an RGB picture",
            found=f"{type(error).__name__}: {' '.join(str(error).split())[:160]}",
            fix="correct preprocessor_config.json",
        ) from error
    if found != wanted:
        raise MismatchError(
            expected=f"a preprocessor configuration of {place} with images of the model's shape, {list(wanted)}",
            found=f"{list(found)} from a picture of 80 x 48 pixels",
            fix="correct size, crop_size and do_center_crop in preprocessor_config.json",
        )
