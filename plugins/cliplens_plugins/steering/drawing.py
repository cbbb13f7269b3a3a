"""Draw pictures over doses, with the embedded generator or with a diffusers pipeline."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image

from cliplens import api, registry
from cliplens.api import DTYPES
from cliplens.contracts import Generator
from cliplens.edits import LatentSteering
from cliplens.errors import InputError
from cliplens.files import read_json
from cliplens_plugins.steering.context import steer
from cliplens_plugins.steering.directions import random_direction
from cliplens_plugins.steering.request import SteeringRequest
from cliplens_plugins.steering.sources import Run

Pictures = list[Image.Image]


@dataclass(frozen=True)
class Strip:
    """Pictures of the same samples, one column per dose."""

    labels: list[str]
    columns: list[Pictures]
    movement: list[dict[str, float]] = field(default_factory=list)
    """Relative change of activations and conditioning, by dose."""

    def distances(self) -> list[float]:
        """Return the mean absolute pixel difference of each column from the first, in [0, 1]."""
        first = [_pixels(p) for p in self.columns[0]]
        return [
            float(np.mean([np.abs(_pixels(p) - q).mean() for p, q in zip(column, first, strict=True)]))
            for column in self.columns
        ]


def _pixels(picture: Image.Image) -> Float[np.ndarray, "height width 3"]:
    return np.asarray(picture.convert("RGB"), dtype=np.float64) / 255


def through_generator(
    request: SteeringRequest,
    generator: str,
    run: Run,
    steering: LatentSteering,
    samples: tuple[list[str], list[Image.Image] | list[str]],
    *,
    control: bool = False,
) -> Strip:
    """Draw the steered embeddings of samples of a run; with `control`, embeddings moved equally far at random."""
    draw = registry.find("generators", generator).make(Generator)
    labels, given = samples
    columns, movement = [], []
    plain = run.embed(given)
    for dose in request.ordered_doses:
        condition = run.embed(given, steering.at_dose(dose))
        if control:
            condition = plain + random_direction(condition - plain, seed=request.seed)
        columns.append(list(draw.generate(condition, seed=request.seed)))
        movement.append({"embedding moved": float((condition - plain).norm() / plain.norm())})
    return Strip(labels, columns, movement)


def through_pipeline(request: SteeringRequest, pipeline: Any, steering: LatentSteering) -> Strip:
    """Draw prompts or pictures with a steered pipeline."""
    inputs = _inputs(request, pipeline)
    labels = list(request.prompts) or [path.name for path in request.images]
    where = {"site": request.site, "part": request.part, "window": request.window}
    columns, movement = [], []
    for dose in request.ordered_doses:
        with torch.no_grad(), steer(pipeline, steering.at_dose(dose), **where) as moved:  # type: ignore[arg-type]
            seeds = [torch.Generator().manual_seed(request.seed + n) for n in range(len(labels))]
            made = pipeline(**inputs, generator=seeds if len(seeds) > 1 else seeds[0])
        columns.append(list(made.images))
        idle = steering.at_dose(dose).idle
        movement.append(
            {
                "activations moved": 0.0 if idle else moved.activations,
                "conditioning moved": 0.0 if idle else moved.conditioning,
            }
        )
    return Strip(labels, columns, movement)


def _inputs(request: SteeringRequest, pipeline: Any) -> dict[str, Any]:
    """Return the arguments of the request that the pipeline accepts."""
    takes = inspect.signature(pipeline.__call__).parameters
    images = [Image.open(path).convert("RGB") for path in request.images]
    given: dict[str, Any] = {"num_inference_steps": request.steps}
    if request.prompts:
        given["prompt"] = list(request.prompts)
    if images:
        given["ip_adapter_image" if _has_ip_adapter(pipeline) else "image"] = images if len(images) > 1 else images[0]
    if request.negative is not None:
        given["negative_prompt"] = [request.negative] * max(1, len(request.prompts))
    if request.guidance is not None:
        given["guidance_scale"] = request.guidance
    if request.size is not None:
        given["width"], given["height"] = request.size
    unknown = [name for name in given if name not in takes]
    if unknown:
        raise InputError(
            expected=f"options that {type(pipeline).__name__} accepts",
            found=f"a value for {', '.join(unknown)}",
            fix="remove the option that sets it: --prompt, --image, --negative, --guidance or --size",
        )
    return given


def _has_ip_adapter(pipeline: Any) -> bool:
    return getattr(getattr(pipeline, "unet", None), "encoder_hid_proj", None) is not None


def open_pipeline(request: SteeringRequest) -> Any:
    """Open a diffusers pipeline from a folder or a single-file checkpoint, with weights in safetensors only.

    Raises:
        InputError: the path holds no pipeline, or its weights cannot be read.
    """
    import diffusers

    path = request.pipeline
    assert path is not None
    options: dict[str, Any] = {"torch_dtype": DTYPES[request.dtype]}
    if path.is_file():
        pipeline = _opened(lambda: diffusers.StableDiffusionPipeline.from_single_file(str(path), **options), path)
        return pipeline.to(api.pick_device(None))
    if not (path / "model_index.json").is_file():
        raise InputError(
            expected="a folder with a model_index.json, as diffusers saves pipelines",
            found=str(path),
            fix="pass the folder that pipeline.save_pretrained wrote",
        )
    options |= {"local_files_only": True, "use_safetensors": True, "variant": request.variant or _variant(path)}
    options |= dict.fromkeys(_left_out(path))
    pipeline = _opened(lambda: diffusers.DiffusionPipeline.from_pretrained(str(path), **options), path)
    if request.lora is not None:
        pipeline.load_lora_weights(str(request.lora))
    return pipeline.to(api.pick_device(None))


def _opened(read: Any, path: Path) -> Any:
    try:
        return read()
    except (OSError, ValueError, AttributeError, ImportError) as error:
        raise InputError(
            expected=f"a diffusers pipeline whose weights are in safetensors files in {path}",
            found=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}",
            fix="save the pipeline again with pipeline.save_pretrained(folder, safe_serialization=True)",
        ) from error


def _left_out(path: Path) -> list[str]:
    """Return the parts that a pipeline was saved without, such as T5; diffusers requires their names."""
    parts = read_json(path / "model_index.json")
    return [name for name, value in parts.items() if isinstance(value, list) and value and value[0] is None]


def _variant(path: Path) -> str | None:
    """Return the variant of the weights, such as fp16, if the folder holds only that one; else None."""
    names = [p.name for p in path.glob("*/*.safetensors")]
    variants = {name.split(".")[1] for name in names if name.count(".") > 1 and "-of-" not in name.split(".")[1]}
    plain = any(name.count(".") == 1 for name in names)
    return variants.pop() if len(variants) == 1 and not plain else None


def samples_to_draw(run: Run, request: SteeringRequest, keep: Any, count: int) -> tuple[list[str], Sequence[Any]]:
    """Return labels and samples: prompts, pictures from files, or held-out pairs of the run."""
    if request.prompts:
        return list(request.prompts), list(request.prompts)
    if request.images:
        opened = [Image.open(path).convert("RGB") for path in request.images]
        return [path.name for path in request.images], opened
    return run.held_out_samples(count, keep)
