"""Real diffusers pipelines: what conditions the picture is rewritten, the denoiser and all else stay as they are.

| part             | what is rewritten                         | pipelines                                   |
|------------------|-------------------------------------------|---------------------------------------------|
| `text_encoder`   | hidden states of the first text encoder   | Stable Diffusion 1.x, 2.x, XL, and variants |
| `text_encoder_2` | hidden states of the second               | Stable Diffusion XL                         |
| `image_embeds`   | the image embedding, wherever it is from  | StableUnCLIPPipeline, ...Img2ImgPipeline    |
| `image_encoder`  | inside the encoder of the reference image | IP-Adapter; StableUnCLIPImg2ImgPipeline     |

The prompt is encoded twice, once as it is and once steered, and only what belongs to the prompt is taken from the
second: negative prompts stay what they were. A window in time swaps the two kinds of conditioning at the denoiser's
door. Nothing is left behind when the context ends.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from cliplens.errors import InputError, MismatchError, unknown_name
from cliplens.sites import Site
from cliplens_plugins.steering.ports import transformers_clip
from cliplens_plugins.steering.ports.port import Port, Rewrite, on_direction, with_position

Window = tuple[float, float]
"""From and to, as fractions of the noise schedule: (0, 1) is all of it, (0, 0.3) the noisiest third."""
TEXT_PARTS = ("text_encoder", "text_encoder_2")
_EMBEDDINGS = ("hook_projected", "hook_embedding")
_CONDITIONING = ("encoder_hidden_states", "class_labels", "added_cond_kwargs")
_OPEN = "_cliplens_window"


def is_pipeline(target: Any) -> bool:
    """Whether the target is a diffusers pipeline we know how to steer; diffusers is not imported to find out."""
    return hasattr(target, "components") and hasattr(target, "unet") and callable(target)


def parts_of(pipeline: Any, site: Site) -> list[str]:
    """The parts of a pipeline a site can lie in, the likeliest first."""
    if site.side == "text":
        return [p for p in TEXT_PARTS if _encoder(pipeline, p) is not None]
    parts = ["image_embeds"] if hasattr(pipeline, "noise_image_embeddings") and site.hook in _EMBEDDINGS else []
    return parts + (["image_encoder"] if _encoder(pipeline, "image_encoder") is not None else [])


def offers(target: Any, site: Site) -> bool:
    """Whether the target is a pipeline with a part for the site."""
    return is_pipeline(target) and bool(parts_of(target, site))


def port(pipeline: Any, site: Site, *, part: str | None, width: int, window: Window | None) -> Port:
    """The port of a site.

    Args:
        pipeline: a diffusers pipeline.
        site: where the dictionary was made.
        part: which part of the pipeline; None takes the first whose width fits.
        width: of the dictionary.
        window: when in the denoising to steer; None is always.

    Raises:
        MismatchError: no part of the pipeline is that wide.
        UnknownNameError: no such part, or no such site in it.
        InputError: the window is no part of [0, 1].
    """
    _check_window(window)
    parts = parts_of(pipeline, site)
    if part is not None:
        if part not in parts:
            raise unknown_name("part of the pipeline for this site", part, parts)
        parts = [part]
    ports = [_port(pipeline, site, p, window) for p in parts]
    for found in ports:
        if found.width == width:
            return found
    widths = ", ".join(f"{p} {f.width}" for p, f in zip(parts, ports, strict=True))
    raise MismatchError(
        expected=f"a part of the pipeline as wide as the dictionary, {width}",
        found=widths,
        fix="steer the pipeline whose encoder the dictionary was made on",
    )


def _port(pipeline: Any, site: Site, part: str, window: Window | None) -> Port:
    if part == "image_embeds":
        width = _embedding_width(pipeline)
        return Port(site, width, lambda rewrite: _embeds_attached(pipeline, site, rewrite, window))
    inner = transformers_clip.port(_encoder(pipeline, part), site)
    if part in TEXT_PARTS:
        return Port(site, inner.width, lambda rewrite: _prompt_attached(pipeline, part, site, rewrite, window))
    return Port(site, inner.width, lambda rewrite: _image_attached(pipeline, site, rewrite, window))


@contextmanager
def _prompt_attached(pipeline: Any, part: str, site: Site, rewrite: Rewrite, window: Window | None) -> Iterator[None]:
    encoder = _encoder(pipeline, part)
    with ExitStack() as stack:
        schedule = _schedule(pipeline, window, stack)

        def encode_prompt(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            _refuse_ready_embeddings(original, args, kwargs)
            plain = original(*args, **kwargs)
            with transformers_clip.attached(encoder, site.hook, rewrite):
                steered = original(*args, **kwargs)
            # Positive and negative conditioning alternate in what the pipelines return.
            merged = tuple(s if n % 2 == 0 else p for n, (p, s) in enumerate(zip(plain, steered, strict=True)))
            schedule.remember(zip(merged[::2], plain[::2], strict=True))
            return merged

        _replaced(pipeline, "encode_prompt", encode_prompt, stack)
        yield


@contextmanager
def _image_attached(pipeline: Any, site: Site, rewrite: Rewrite, window: Window | None) -> Iterator[None]:
    encoder = _encoder(pipeline, "image_encoder")
    with ExitStack() as stack:
        if not hasattr(pipeline, "encode_image"):
            if window is not None:
                raise InputError(
                    expected="a site at the image embedding, where a window in time is asked for",
                    found=f"{site}, inside the image encoder of {type(pipeline).__name__}",
                    fix="steer vision.hook_projected or vision.hook_embedding, or leave the window out",
                )
            stack.enter_context(transformers_clip.attached(encoder, site.hook, rewrite))
            yield
            return
        schedule = _schedule(pipeline, window, stack)

        def encode_image(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            plain, uncond = original(*args, **kwargs)
            with transformers_clip.attached(encoder, site.hook, rewrite):
                steered, _ = original(*args, **kwargs)
            schedule.remember([(steered, plain)])
            return steered, uncond

        _replaced(pipeline, "encode_image", encode_image, stack)
        yield


@contextmanager
def _embeds_attached(pipeline: Any, site: Site, rewrite: Rewrite, window: Window | None) -> Iterator[None]:
    change = on_direction(rewrite) if site.hook == "hook_embedding" else rewrite
    with ExitStack() as stack:
        schedule = _schedule(pipeline, window, stack)

        def noise_image_embeddings(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
            given = inspect.signature(original).bind(*args, **kwargs).arguments
            embeds: Tensor = given.pop("image_embeds")
            given["noise"] = _noise(embeds, given)
            noised: Tensor = original(image_embeds=with_position(change, embeds), **given)
            if schedule.active:
                schedule.remember([(noised, original(image_embeds=embeds, **given))])
            return noised

        _replaced(pipeline, "noise_image_embeddings", noise_image_embeddings, stack)
        yield


def _noise(embeds: Tensor, given: dict[str, Any]) -> Tensor:
    """The very noise the pipeline would have drawn, drawn once for both kinds of conditioning."""
    from diffusers.utils.torch_utils import randn_tensor

    if given.get("noise") is not None:
        return given["noise"]
    generator = given.get("generator")
    drawn: Tensor = randn_tensor(embeds.shape, generator=generator, device=embeds.device, dtype=embeds.dtype)
    return drawn


class _Schedule:
    """Swaps steered conditioning for plain outside the window, row by row, at the denoiser's door."""

    def __init__(self, window: Window | None, steps: int) -> None:
        self.window, self._steps = window, steps
        self.active = window is not None
        self._rows: list[tuple[Tensor, Tensor]] = []
        self._swapped: list[tuple[Tensor, Tensor]] = []

    def remember(self, pairs: Any) -> None:
        """Keep which steered rows stand for which plain ones."""
        if self.active:
            self._rows = [(s, p) for s, p in pairs if s is not None]
            self._swapped = []

    def at_the_door(self, denoiser: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What the denoiser is given in place of its arguments at this timestep; None leaves them."""
        timestep = kwargs["timestep"] if "timestep" in kwargs else args[1]
        progress = 1.0 - float(torch.as_tensor(timestep).float().max()) / self._steps
        start, stop = self.window  # type: ignore[misc]
        if start <= progress < stop or (stop >= 1.0 and progress >= start):
            return None
        conditioned = {name: self._plain(v) if name in _CONDITIONING else v for name, v in kwargs.items()}
        return (*args[:2], *(self._plain(a) for a in args[2:])), conditioned

    def _plain(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {name: self._plain(v) for name, v in value.items()}
        if isinstance(value, list):
            return [self._plain(v) for v in value]
        if not isinstance(value, Tensor) or value.ndim < 2:
            return value
        for seen, swapped in self._swapped:
            if seen is value:
                return swapped
        swapped = self._restored(value)
        # Pipelines hand the same tensor to every step, so this is looked up once per call.
        self._swapped.append((value, swapped))
        return swapped

    def _restored(self, value: Tensor) -> Tensor:
        result = value
        for steered, plain in self._rows:
            if steered.shape[-1] != value.shape[-1] or steered.numel() // len(steered) != value.numel() // len(value):
                continue
            for row, original in zip(steered.flatten(1), plain.flatten(1), strict=True):
                same = (value.flatten(1) == row.to(value)).all(1)
                if bool(same.any()):
                    result = result.clone() if result is value else result
                    result[same] = original.to(value).reshape(value.shape[1:])
        return result


def _schedule(pipeline: Any, window: Window | None, stack: ExitStack) -> _Schedule:
    schedule = _Schedule(window, int(pipeline.scheduler.config.num_train_timesteps))
    if window is not None:
        if _OPEN in pipeline.__dict__:
            raise InputError(
                expected="one window in time on a pipeline",
                found="a second one inside the first",
                fix="put both edits into one steering, or leave one window out",
            )
        pipeline.__dict__[_OPEN] = True
        stack.callback(pipeline.__dict__.pop, _OPEN)
        handle = pipeline.unet.register_forward_pre_hook(schedule.at_the_door, with_kwargs=True)
        stack.callback(handle.remove)
    return schedule


def _replaced(pipeline: Any, name: str, method: Callable[..., Any], stack: ExitStack) -> None:
    """Put a method in front of the pipeline's own, on this one object, until the stack closes."""
    original = getattr(pipeline, name)
    before = pipeline.__dict__.get(name)

    def put_back() -> None:
        if before is None:
            pipeline.__dict__.pop(name, None)
        else:
            pipeline.__dict__[name] = before

    def called(*args: Any, **kwargs: Any) -> Any:
        return method(original, *args, **kwargs)

    pipeline.__dict__[name] = called
    called.__signature__ = inspect.signature(original)  # type: ignore[attr-defined]
    stack.callback(put_back)


def _refuse_ready_embeddings(original: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> None:
    given = inspect.signature(original).bind(*args, **kwargs).arguments
    if given.get("prompt_embeds") is not None:
        raise InputError(
            expected="a prompt as text, so that the text encoder runs and can be steered",
            found="prompt_embeds that are made already",
            fix="give prompt=..., or make the embeddings inside the steering context",
        )


def _embedding_width(pipeline: Any) -> int:
    return int(pipeline.image_normalizer.mean.shape[-1])


def _encoder(pipeline: Any, part: str) -> Any:
    found = getattr(pipeline, part, None)
    if not isinstance(found, nn.Module) or transformers_clip.side_of(found) is None:
        return None
    return found


def _check_window(window: Window | None) -> None:
    if window is not None and not 0.0 <= window[0] < window[1] <= 1.0:
        raise InputError(
            expected="a window (from, to) with 0 <= from < to <= 1",
            found=str(window),
            fix="give for example (0.0, 0.5)",
        )
