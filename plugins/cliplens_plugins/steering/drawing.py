"""Draw pictures over doses, with the embedded generator or with a diffusers pipeline."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from cliplens import registry
from cliplens.contracts import Generator
from cliplens.edits import Steering
from cliplens.errors import CliplensError, InputError
from cliplens_plugins.steering.context import steer
from cliplens_plugins.steering.given import picture_at
from cliplens_plugins.steering.pipeline_inputs import inputs
from cliplens_plugins.steering.request import SteeringRequest
from cliplens_plugins.steering.samples import Sample, samples_of
from cliplens_plugins.steering.sources import Run

Pictures = list[Image.Image]
Plain = dict[int, tuple[Pictures, dict[str, float]]]
"""Pictures that a pipeline draws without an edit, and figures of movement (all 0), by seed."""


@dataclass(frozen=True)
class Call:
    """One call of a pipeline."""

    samples: list[int]
    """Numbers of the samples that it draws."""
    reference: int
    """Number of the reference of all of them."""
    inputs: dict[str, Any]


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
    apart = bool(request.prompts or request.images)  # so that each can be drawn again alone
    columns, movement = [], []
    plain = run.embed(given)
    each = each_of(steering)
    for dose in request.ordered_doses:
        condition = _steered(run, given, [one.at_dose(dose) for one in each])
        columns.append([p for seed in request.all_seeds for p in _generated(draw, condition, seed, apart=apart)])
        movement.append({"embedding moved": float((condition - plain).norm() / plain.norm())})
    return Strip(of_every_seed(labels, request.all_seeds), columns, movement)


def _generated(draw: Generator, condition: Float[Tensor, "sample d_embed"], seed: int, *, apart: bool) -> Pictures:
    """Return the pictures of a seed: where they are drawn apart, each from the noise of the first row."""
    return [p for rows in (condition.split(1) if apart else (condition,)) for p in draw.generate(rows, seed=seed)]


def _steered(run: Run, samples: Sequence[Any], each: Sequence[Any]) -> Float[Tensor, "sample d_embed"]:
    """Return the steered embeddings of samples, each with its own steering if there are several."""
    if len(each) == 1:
        return run.embed(samples, each[0])
    return torch.cat([run.embed([sample], one) for sample, one in zip(samples, each, strict=True)])


def each_of(steering: Any) -> tuple[Any, ...]:
    """Return the steerings of the references of a mix, or the only one."""
    return steering if isinstance(steering, tuple) else (steering,)


def through_pipeline(request: SteeringRequest, pipeline: Any, steering: Any, plain: Plain | None = None) -> Strip:
    """Draw prompts or pictures with a steered pipeline, every one with every seed.

    Args:
        request: the options.
        pipeline: the pipeline.
        steering: the steering, or a tuple of one for each reference.
        plain: keeps the pictures at dose 0 from one edit to the next.
    """
    plain = {} if plain is None else plain
    samples = samples_of(request)
    calls = _calls(request, pipeline, samples)
    columns, movement = [], []
    for dose in request.ordered_doses:
        at = tuple(one.at_dose(dose) for one in each_of(steering))
        drawn = [_of_seed(request, pipeline, at, calls, seed, plain) for seed in request.all_seeds]
        columns.append([picture for pictures, _ in drawn for picture in pictures])
        movement.append(_mean([moved for _, moved in drawn]))
    return Strip(of_every_seed([s.label for s in samples], request.all_seeds), columns, movement)


def _calls(request: SteeringRequest, pipeline: Any, samples: Sequence[Sample]) -> list[Call]:
    """Return the calls of the pipeline that draw all samples: one, if a batch can hold them, else one for each."""
    apart = len(request.ip_images) > 1 or len(request.reference) > 1 or (request.images and request.prompts)
    parts = [[n] for n in range(len(samples))] if apart else [list(range(len(samples)))]
    return [
        Call(part, samples[part[0]].reference, inputs(request, pipeline, [samples[n] for n in part])) for part in parts
    ]


def _of_seed(
    request: SteeringRequest, pipeline: Any, at: Sequence[Any], calls: Sequence[Call], seed: int, plain: Plain
) -> tuple[Pictures, dict[str, float]]:
    """Return the pictures of one dose and seed, and how far activations and conditioning moved."""
    idle = all(one.idle for one in at)
    if idle and seed in plain:
        return plain[seed]
    drawn = [_drawn(request, pipeline, at[call.reference], call, seed) for call in calls]
    found = [picture for pictures, _ in drawn for picture in pictures], _mean([moved for _, moved in drawn])
    if idle:
        plain[seed] = found
    return found


def _mean(figures: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: sum(f[name] for f in figures) / len(figures) for name in figures[0]}


def _drawn(
    request: SteeringRequest, pipeline: Any, steering: Steering, call: Call, seed: int
) -> tuple[Pictures, dict[str, float]]:
    """Return the pictures of one call, and how far activations and conditioning moved."""
    where: dict[str, Any] = {"site": request.site, "part": request.part, "window": request.window}
    with torch.no_grad(), steer(pipeline, steering, **where) as moved:
        seeds = [torch.Generator().manual_seed(seed) for _ in call.samples]
        made = _called(pipeline, call.inputs, seeds if len(seeds) > 1 else seeds[0])
    if not hasattr(made, "images"):
        raise InputError(
            expected="a pipeline that draws pictures",
            found=f"{type(pipeline).__name__}, which makes {', '.join(made)}",
            fix="give the pipeline that draws them too, such as KandinskyV22CombinedPipeline",
        )
    figures = {"activations moved": moved.activations, "conditioning moved": moved.conditioning}
    return list(made.images), dict.fromkeys(figures, 0.0) if steering.idle else figures


def _called(pipeline: Any, given: dict[str, Any], generator: Any) -> Any:
    """Call the pipeline. What it refuses itself, such as a missing picture, is refused in its words."""
    try:
        return pipeline(**given, generator=generator)
    except CliplensError:
        raise
    except (TypeError, ValueError) as error:
        raise InputError(
            expected=f"options with which {type(pipeline).__name__} can draw",
            found=f"options of which it says: {' '.join(str(error).split())[:300]}",
            fix="give what it asks for, as --prompt, --image, --ip-image, --mask or --size",
        ) from error


def samples_to_draw(run: Run, request: SteeringRequest, keep: Any, count: int) -> tuple[list[str], Sequence[Any]]:
    """Return labels and samples: prompts, pictures from files, or held-out pairs of the run.

    Raises:
        InputError: there are prompts and pictures, or another number of references than of either.
    """
    if not request.prompts and not request.images:
        return run.held_out_samples(count, keep)
    if request.prompts and request.images:
        raise InputError(
            expected="--prompt or --image, because this generator draws one embedding",
            found=f"{len(request.prompts)} --prompt and {len(request.images)} --image",
            fix="leave out one of them; to mix a picture into a prompt, pass it as --reference with --mix",
        )
    samples = samples_of(request)
    return [s.label for s in samples], [s.prompt if s.image is None else picture_at(s.image) for s in samples]


def as_trained(request: SteeringRequest, generator: str, samples: Sequence[Any]) -> list[Any]:
    """Return captions in the form that the generator was trained on, and pictures as they are.

    Raises:
        InputError: the generator does not know a word.
    """
    draw = registry.find("generators", generator).make(Generator)
    return [draw.long_forms([s], seed=request.seed)[0] if isinstance(s, str) else s for s in samples]
