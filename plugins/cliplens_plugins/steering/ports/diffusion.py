"""Steer diffusers pipelines: the conditioning of the prompt is rewritten, the denoiser and the rest are unchanged.

| part                 | rewritten                                | pipelines                                         |
|----------------------|------------------------------------------|---------------------------------------------------|
| `text_encoder`       | the CLIP text encoder                    | Stable Diffusion 1 to 3, XL, Flux, Kandinsky 2.2  |
| `text_encoder_2`     | the second CLIP text encoder             | Stable Diffusion XL and 3                         |
| `prior_text_encoder` | the text encoder of the prior            | StableUnCLIPPipeline                              |
| `image_embeds`       | the image embedding, wherever it is from | StableUnCLIPPipeline, ...Img2ImgPipeline          |
| `image_encoder`      | the encoder of the reference image       | IP-Adapter, unCLIP from images, ImageVariation    |

Each pipeline encodes its prompt in one method, in which each encoder runs first for the prompt and then for the
negative prompt. Only the first run is steered, so negative prompts are unchanged. On the first call, and on every call
with a window, the conditioning without steering is computed too. The two are compared, and a site that does not change
the conditioning is refused. For this, only the layers after the site run a second time. Everything is restored when the
context ends.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from cliplens.errors import InputError, MismatchError, unknown_name
from cliplens.sites import Site
from cliplens_plugins.steering.ports import transformers_clip
from cliplens_plugins.steering.ports.compiled import uncompiled, unwrapped
from cliplens_plugins.steering.ports.denoising import Conditioning, Window, check_window, denoiser_of
from cliplens_plugins.steering.ports.methods import generator_rewound, method_replaced, noise_for
from cliplens_plugins.steering.ports.movement import Movement
from cliplens_plugins.steering.ports.port import Port
from cliplens_plugins.steering.ports.replay import Replay
from cliplens_plugins.steering.ports.rewriting import Rewrite, on_direction, on_first_rows, with_position

TEXT_PARTS = ("text_encoder", "text_encoder_2", "prior_text_encoder")
_METHODS = {
    "text_encoder": ("encode_prompt", "_encode_prompt"),
    "text_encoder_2": ("encode_prompt", "_encode_prompt"),
    "prior_text_encoder": ("_encode_prior_prompt",),
    "image_encoder": ("encode_image", "_encode_image"),
}
_DENOISER_OF = {"prior_text_encoder": "prior"}
_READY = ("prompt_embeds", "image_embeds")
_EMBEDDINGS = ("hook_projected", "hook_embedding")


def is_pipeline(target: Any) -> bool:
    """Return whether the target is a diffusers pipeline with a denoiser, without importing diffusers."""
    return hasattr(target, "components") and denoiser_of(target) is not None and callable(target)


def parts_of(pipeline: Any, site: Site) -> list[str]:
    """Return the parts of a pipeline on the site's side, the most likely first."""
    pipeline = drawing_from_words(pipeline)
    if site.side == "text":
        return [p for p in TEXT_PARTS if _encoder(pipeline, p) is not None and _method(pipeline, p) is not None]
    parts = ["image_embeds"] if hasattr(pipeline, "noise_image_embeddings") and site.hook in _EMBEDDINGS else []
    has_encoder = _encoder(pipeline, "image_encoder") is not None and _method(pipeline, "image_encoder") is not None
    return [*parts, "image_encoder"] if has_encoder else parts


def drawing_from_words(pipeline: Any) -> Any:
    """Return the pipeline that holds the encoders: of pipelines made of two, such as Kandinsky 2.2, the first."""
    return getattr(pipeline, "prior_pipe", None) or pipeline


def described(pipeline: Any) -> str:
    """Return a pipeline's class and its encoders, for refusals."""
    parts = drawing_from_words(pipeline).components.items()
    encoders = [f"{name} ({type(unwrapped(p)).__name__})" for name, p in parts if "encoder" in name and p is not None]
    return f"{type(pipeline).__name__}, which has {', '.join(encoders) or 'no encoder'}"


def offers(target: Any, site: Site) -> bool:
    """Return whether the target is a pipeline with a part for the site."""
    return is_pipeline(target) and bool(parts_of(target, site))


def has(target: Any, site: Site) -> bool:
    """Return whether the target is a pipeline of which a part has the site."""
    if not is_pipeline(target):
        return False
    pipeline = drawing_from_words(target)
    return any(site.hook in _sites(pipeline, part) for part in parts_of(pipeline, site))


def text_encoder_of(pipeline: Any) -> Any:
    """Return the CLIP encoder of the prompt; None without one."""
    return _encoder(drawing_from_words(pipeline), "text_encoder")


def port(pipeline: Any, site: Site, *, part: str | None, width: int, window: Window | None) -> Port:
    """Return the port of a site.

    Args:
        pipeline: a diffusers pipeline.
        site: the site to steer.
        part: the part of the pipeline; None means the first that has the site with this width.
        width: width of the dictionary.
        window: the part of the denoising to steer; None means all of it.

    Raises:
        MismatchError: no part of the pipeline has the site with this width.
        UnknownNameError: the pipeline has no such part, or no part has such a site.
        InputError: the window is not a part of [0, 1].
    """
    check_window(window)
    _check_one_denoiser(pipeline, window)
    pipeline = drawing_from_words(pipeline)
    parts = parts_of(pipeline, site)
    if part is not None:
        if part not in parts:
            raise unknown_name("part of the pipeline for this site", part, parts)
        parts = [part]
    having = [p for p in parts if p == "image_embeds" or site.hook in _sites(pipeline, p)]
    if not having:
        known = {hook for p in parts for hook in _sites(pipeline, p)}
        raise unknown_name(f"site of the {site.side} encoders of {type(pipeline).__name__}", site.hook, known)
    ports = [_port(pipeline, site, p, window) for p in having]
    for found in ports:
        if found.width == width:
            return found
    widths = ", ".join(f"{p} {f.width}" for p, f in zip(having, ports, strict=True))
    raise MismatchError(
        expected=f"a part of the pipeline of the dictionary's width, {width}",
        found=widths,
        fix="steer a pipeline with the encoder on which the dictionary was trained",
    )


def _port(pipeline: Any, site: Site, part: str, window: Window | None) -> Port:
    if part == "image_embeds":
        width = int(pipeline.image_normalizer.mean.shape[-1])
        return Port(site, width, lambda rewrite, movement: _embeds_attached(pipeline, site, rewrite, movement, window))
    inner = transformers_clip.port(_encoder(pipeline, part), site)
    return Port(
        site,
        inner.width,
        lambda rewrite, movement: _encoder_attached(pipeline, part, site, rewrite, movement, window),
    )


@contextmanager
def _encoder_attached(
    pipeline: Any, part: str, site: Site, rewrite: Rewrite, movement: Movement, window: Window | None
) -> Iterator[None]:
    encoder, name = _encoder(pipeline, part), _method(pipeline, part)
    denoiser = denoiser_of(pipeline, _DENOISER_OF.get(part))
    assert name is not None
    assert denoiser is not None
    # Inside another context the encoders of two passes need not agree: the other context edits them too.
    alone = name not in pipeline.__dict__
    with ExitStack() as stack:
        stack.enter_context(uncompiled(getattr(pipeline, part)))
        conditioning = Conditioning(pipeline, denoiser, movement, str(site), window, stack)
        prompts: list[Any] = []

        def encode(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            given = inspect.signature(original).bind(*args, **kwargs).arguments
            if _is_ready(given, conditioning, name):
                return original(*args, **kwargs)
            if _is_negative(original, given, prompts, conditioning):
                return original(*args, **kwargs)
            plain = None
            replay = _replay(pipeline, part, encoder, site) if alone else Replay([])
            if window is not None or not movement.compared:
                transformers_clip.begin_pass(encoder)
                with generator_rewound(given.get("generator")), replay.recording():
                    plain = original(*args, **kwargs)
            calls = movement.calls
            change = on_first_rows(rewrite, _prompts_among(pipeline, given))
            attached = transformers_clip.attached(encoder, site.hook, change, first_call_only=True)
            transformers_clip.begin_pass(encoder)
            with replay.replaying(), attached:
                steered = original(*args, **kwargs)
            if movement.calls > calls:
                if plain is not None:
                    movement.compare(plain, steered)
                    _refuse_unread(movement, site, pipeline, encoder)
                conditioning.remember(steered, plain)
            return steered

        method_replaced(pipeline, name, encode, stack)
        yield


def _is_ready(given: dict[str, Any], conditioning: Conditioning, method: str) -> bool:
    """Return whether the call passes conditioning that was computed in this context.

    Raises:
        InputError: the conditioning was computed elsewhere, so no encoder would run.
    """
    ready = [(name, given[name]) for name in _READY if given.get(name) is not None]
    if not ready:
        return False
    if all(isinstance(value, Tensor) and conditioning.made_here(value) for _, value in ready):
        conditioning.accept()
        return True
    raise InputError(
        expected="a prompt or a picture, so that its encoder runs and can be steered",
        found=f"{ready[0][0]}, which was computed before",
        fix=f"pass the prompt or the picture itself, or call pipeline.{method} inside the steering context",
    )


def _is_negative(
    original: Callable[..., Any], given: dict[str, Any], prompts: list[Any], conditioning: Conditioning
) -> bool:
    """Return whether this call encodes a negative prompt, for pipelines that encode it in a separate call."""
    if "prompt" not in given or "negative_prompt" in inspect.signature(original).parameters:
        return False
    if conditioning.fresh:
        prompts[:] = [given["prompt"]]
        conditioning.fresh = False
    return bool(given["prompt"] != prompts[0])


def _replay(pipeline: Any, part: str, encoder: nn.Module, site: Site) -> Replay:
    """Return the replay of all that an edit at the site does not change: other networks, and layers before the site."""
    others = [p for name, p in pipeline.components.items() if name != part and isinstance(p, nn.Module)]
    return Replay([*others, *transformers_clip.before_site(encoder, site.hook)], encoder)


def _prompts_among(pipeline: Any, given: dict[str, Any]) -> int | None:
    """Return how many of the prompts encoded together are no negative ones; None for all of them.

    Kandinsky's prior appends its negative prompts to the prompts, and passes them twice as `negative_prompt`.
    """
    prompts, negative = given.get("prompt"), given.get("negative_prompt")
    if not type(pipeline).__name__.startswith("Kandinsky") or not isinstance(negative, list):
        return None
    half = len(negative) // 2
    return half if isinstance(prompts, list) and prompts[half:] == negative[:half] else None


def _check_one_denoiser(pipeline: Any, window: Window | None) -> None:
    if window is not None and denoiser_of(pipeline, "prior") and denoiser_of(pipeline, "decoder"):
        raise InputError(
            expected="a pipeline in which one network removes noise, where a window is given",
            found=f"{type(pipeline).__name__}, in which prior and decoder do",
            fix="leave the window out",
        )


def _refuse_unread(movement: Movement, site: Site, pipeline: Any, encoder: nn.Module) -> None:
    last = transformers_clip.n_layers(encoder) - 2
    layer = min(last, last if site.layer is None else site.layer - 1)
    instead = f"steer an earlier block, such as {site.side}.blocks.{max(layer, 0)}.hook_resid_post"
    movement.refuse_unread(str(site), type(pipeline).__name__, instead)


@contextmanager
def _embeds_attached(
    pipeline: Any, site: Site, rewrite: Rewrite, movement: Movement, window: Window | None
) -> Iterator[None]:
    change = on_direction(rewrite) if site.hook == "hook_embedding" else rewrite
    denoiser = denoiser_of(pipeline)
    assert denoiser is not None
    with ExitStack() as stack:
        conditioning = Conditioning(pipeline, denoiser, movement, str(site), window, stack)

        def noise_image_embeddings(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
            given = inspect.signature(original).bind(*args, **kwargs).arguments
            embeds: Tensor = given.pop("image_embeds")
            given["noise"] = noise_for(embeds, given)
            noised: Tensor = original(image_embeds=with_position(change, embeds), **given)
            plain = original(image_embeds=embeds, **given)
            if not movement.compared:
                movement.compare(plain, noised)
                movement.refuse_unread(str(site), type(pipeline).__name__, "steer the encoder that makes the embedding")
            conditioning.remember(noised, plain)
            return noised

        method_replaced(pipeline, "noise_image_embeddings", noise_image_embeddings, stack)
        yield


def _sites(pipeline: Any, part: str) -> list[str]:
    if part == "image_embeds":
        return list(_EMBEDDINGS)
    final = [transformers_clip.FINAL] if part in TEXT_PARTS else []
    return [*transformers_clip.hooks_of(_encoder(pipeline, part)), *final]


def _method(pipeline: Any, part: str) -> str | None:
    return next((name for name in _METHODS[part] if hasattr(pipeline, name)), None)


def _encoder(pipeline: Any, part: str) -> Any:
    found = getattr(pipeline, part, None)
    if not isinstance(found, nn.Module):
        return None
    found = unwrapped(found)
    return None if transformers_clip.side_of(found) is None else found
