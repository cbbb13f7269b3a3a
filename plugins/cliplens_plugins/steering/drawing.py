"""Draw pictures over doses, with the embedded generator or with a diffusers pipeline."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image

from cliplens import registry
from cliplens.contracts import Generator
from cliplens.edits import Steering
from cliplens.errors import InputError
from cliplens_plugins.steering.context import steer
from cliplens_plugins.steering.given import picture_at
from cliplens_plugins.steering.request import SteeringRequest
from cliplens_plugins.steering.sources import Run

Pictures = list[Image.Image]
Plain = dict[int, tuple[Pictures, dict[str, float]]]
"""Pictures that a pipeline draws without an edit, and figures of movement (all 0), by seed."""


@dataclass(frozen=True)
class Strip:
    """Pictures of the same samples, one column per dose."""

    labels: list[str]
    columns: list[Pictures]
    movement: list[dict[str, float]] = field(default_factory=list)
    """Relative change of activations and conditioning, by dose."""

    def distances(self, at: int = 0) -> list[list[float]]:
        """Return per column the mean absolute pixel difference of each picture from the column `at`, in [0, 1]."""
        first = [_pixels(p) for p in self.columns[at]]
        return [
            [float(np.abs(_pixels(p) - q).mean()) for p, q in zip(column, first, strict=True)]
            for column in self.columns
        ]

    def first(self, count: int) -> "Strip":
        """Return the strip of the first samples."""
        return Strip(self.labels[:count], [column[:count] for column in self.columns], self.movement)


def _pixels(picture: Image.Image) -> Float[np.ndarray, "height width 3"]:
    return np.asarray(picture.convert("RGB"), dtype=np.float64) / 255


def of_every_seed(labels: Sequence[str], seeds: Sequence[int]) -> list[str]:
    """Return the labels once per seed, with the seed where there are several."""
    return list(labels) if len(seeds) == 1 else [f"{label}, seed {seed}" for seed in seeds for label in labels]


def through_generator(
    request: SteeringRequest,
    generator: str,
    run: Run,
    steering: Any,
    samples: tuple[list[str], Sequence[Image.Image] | Sequence[str]],
) -> Strip:
    """Draw the steered embeddings of samples of a run."""
    draw = registry.find("generators", generator).make(Generator)
    labels, given = samples
    columns, movement = [], []
    plain = run.embed(given)
    for dose in request.ordered_doses:
        condition = run.embed(given, steering.at_dose(dose))
        columns.append([p for seed in request.all_seeds for p in draw.generate(condition, seed=seed)])
        movement.append({"embedding moved": float((condition - plain).norm() / plain.norm())})
    return Strip(of_every_seed(labels, request.all_seeds), columns, movement)


def through_pipeline(request: SteeringRequest, pipeline: Any, steering: Any, plain: Plain | None = None) -> Strip:
    """Draw prompts or pictures with a steered pipeline, every one with every seed.

    `plain` keeps the pictures at dose 0 from one edit to the next.
    """
    plain = {} if plain is None else plain
    inputs = _inputs(request, pipeline)
    labels = list(request.prompts) or [path.name for path in (*request.images, *request.ip_images)]
    columns, movement = [], []
    for dose in request.ordered_doses:
        pictures: Pictures = []
        for seed in request.all_seeds:
            at, known = steering.at_dose(dose), plain.get(seed)
            if at.idle and known is not None:
                made, moved = known
            else:
                made, moved = _drawn(request, pipeline, at, inputs, seed, len(labels))
            if at.idle:
                plain[seed] = made, moved
            pictures += made
        columns.append(pictures)
        movement.append(moved)
    return Strip(of_every_seed(labels, request.all_seeds), columns, movement)


def _drawn(
    request: SteeringRequest, pipeline: Any, steering: Steering, inputs: dict[str, Any], seed: int, count: int
) -> tuple[Pictures, dict[str, float]]:
    """Return the pictures of one dose and seed, and how far activations and conditioning moved."""
    where: dict[str, Any] = {"site": request.site, "part": request.part, "window": request.window}
    with torch.no_grad(), steer(pipeline, steering, **where) as moved:
        seeds = [torch.Generator().manual_seed(seed + n) for n in range(count)]
        made = pipeline(**inputs, generator=seeds if count > 1 else seeds[0])
    if not hasattr(made, "images"):
        raise InputError(
            expected="a pipeline that draws pictures",
            found=f"{type(pipeline).__name__}, which makes {', '.join(made)}",
            fix="give the pipeline that draws them too, such as KandinskyV22CombinedPipeline",
        )
    figures = {"activations moved": moved.activations, "conditioning moved": moved.conditioning}
    return list(made.images), dict.fromkeys(figures, 0.0) if steering.idle else figures


def _inputs(request: SteeringRequest, pipeline: Any) -> dict[str, Any]:
    """Return the arguments of the request that the pipeline accepts."""
    takes = inspect.signature(pipeline.__call__).parameters
    given: dict[str, Any] = {_steps_name(takes): request.steps}
    if request.prompts:
        given["prompt"] = list(request.prompts)
    only_adapter = _has_ip_adapter(pipeline) and not request.ip_images
    for name, paths in (
        ("ip_adapter_image" if only_adapter else "image", request.images),
        ("ip_adapter_image", request.ip_images),
        ("mask_image", () if request.mask is None else (request.mask,)),
    ):
        opened = [picture_at(path, mask=name == "mask_image") for path in paths]
        if opened:
            given[name] = opened if len(opened) > 1 else opened[0]
    if request.negative is not None:
        given["negative_prompt"] = [request.negative] * max(1, len(request.prompts))
    plain = {"guidance_scale": request.guidance, "strength": request.strength}
    given |= {name: value for name, value in plain.items() if value is not None}
    if request.size is not None:
        given["width"], given["height"] = request.size
    unknown = [_OPTIONS.get(name, name) for name in given if name not in takes]
    if unknown:
        raise InputError(
            expected=f"options that {type(pipeline).__name__} accepts",
            found=f"a value for {', '.join(dict.fromkeys(unknown))}",
            fix="remove these options",
        )
    return given


_OPTIONS = {
    "prompt": "--prompt",
    "image": "--image",
    "ip_adapter_image": "--ip-image",
    "mask_image": "--mask",
    "negative_prompt": "--negative",
    "guidance_scale": "--guidance",
    "strength": "--strength",
    "width": "--size",
    "height": "--size",
}
"""Argument of a pipeline -> the option it comes from."""


def _steps_name(takes: Any) -> str:
    names = ("num_inference_steps", "decoder_num_inference_steps")
    return next((name for name in names if name in takes), names[0])


def _has_ip_adapter(pipeline: Any) -> bool:
    return getattr(getattr(pipeline, "unet", None), "encoder_hid_proj", None) is not None


def samples_to_draw(run: Run, request: SteeringRequest, keep: Any, count: int) -> tuple[list[str], Sequence[Any]]:
    """Return labels and samples: prompts, pictures from files, or held-out pairs of the run."""
    if request.prompts:
        return list(request.prompts), list(request.prompts)
    if request.images:
        opened = [picture_at(path) for path in request.images]
        return [path.name for path in request.images], opened
    return run.held_out_samples(count, keep)
