"""Turn the options of a request into the arguments of a diffusers pipeline."""

import inspect
from collections.abc import Sequence
from typing import Any

from cliplens.errors import InputError
from cliplens_plugins.steering.given import picture_at
from cliplens_plugins.steering.request import SteeringRequest
from cliplens_plugins.steering.samples import Sample

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


def inputs(request: SteeringRequest, pipeline: Any, samples: Sequence[Sample]) -> dict[str, Any]:
    """Return the arguments with which the pipeline draws the samples in one call.

    Raises:
        InputError: the pipeline does not accept an option, or lacks the picture or the weights of an IP-Adapter.
    """
    takes = inspect.signature(pipeline.__call__).parameters
    given: dict[str, Any] = {_steps_name(takes): request.steps}
    if request.prompts:
        given["prompt"] = [sample.prompt for sample in samples]
    adapted = _has_ip_adapter(pipeline)
    if adapted and not request.prompts:
        given["prompt"] = [""] * len(samples)  # such a pipeline may be asked for its picture alone
    given |= _pictures(request, samples, adapted)
    if request.negative is not None:
        given["negative_prompt"] = [request.negative] * len(given.get("prompt", [""]))
    plain = {"guidance_scale": request.guidance, "strength": request.strength}
    given |= {name: value for name, value in plain.items() if value is not None}
    if request.size is not None:
        given["width"], given["height"] = request.size
    _check(request, pipeline, given, takes)
    return given


def _pictures(request: SteeringRequest, samples: Sequence[Sample], adapted: bool) -> dict[str, Any]:
    only_adapter = adapted and not request.ip_images
    images = [sample.image for sample in samples] if len(request.images) > 1 else request.images
    ip_images = [sample.ip_image for sample in samples] if len(request.ip_images) > 1 else request.ip_images
    opened = {
        "ip_adapter_image" if only_adapter else "image": [picture_at(path) for path in images if path],
        "mask_image": [] if request.mask is None else [picture_at(request.mask, mask=True)],
    }
    if ip_images:
        opened["ip_adapter_image"] = [picture_at(path) for path in ip_images if path]
    return {name: pictures if len(pictures) > 1 else pictures[0] for name, pictures in opened.items() if pictures}


def _check(request: SteeringRequest, pipeline: Any, given: dict[str, Any], takes: Any) -> None:
    kind = type(pipeline).__name__
    unknown = [_OPTIONS.get(name, name) for name in given if name not in takes]
    if unknown:
        raise InputError(
            expected=f"options that {kind} accepts",
            found=f"a value for {', '.join(dict.fromkeys(unknown))}",
            fix="remove these options" + ("" if request.prompts or "prompt" not in takes else "; give --prompt"),
        )
    adapted, has_picture = _has_ip_adapter(pipeline), "ip_adapter_image" in given
    if adapted != has_picture and getattr(pipeline, "unet", None) is not None:
        raise InputError(
            expected="an IP-Adapter and a picture for it",
            found=f"a picture, but no IP-Adapter on {kind}" if has_picture else "no picture for it",
            fix="pass --ip-adapter FILE" if has_picture else "pass --ip-image FILE",
        )


def _steps_name(takes: Any) -> str:
    names = ("num_inference_steps", "decoder_num_inference_steps")
    return next((name for name in names if name in takes), names[0])


def _has_ip_adapter(pipeline: Any) -> bool:
    found = getattr(getattr(pipeline, "unet", None), "encoder_hid_proj", None)
    return hasattr(found, "image_projection_layers")  # Kandinsky's denoiser has a projection of its own
