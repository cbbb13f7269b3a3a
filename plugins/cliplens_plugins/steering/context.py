"""`with steer(target, steering):` attaches steering to any model it can be attached to."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from cliplens.edits import Steering
from cliplens.errors import InputError, MismatchError
from cliplens.hooked import HookedCLIP
from cliplens.sites import Site
from cliplens_plugins.steering.ports import diffusion, hooked, multimodal, transformers_clip
from cliplens_plugins.steering.ports.denoising import Window
from cliplens_plugins.steering.ports.movement import Movement
from cliplens_plugins.steering.ports.port import Port
from cliplens_plugins.steering.ports.rewriting import Rewrite

SUPPORTED = (
    "give a HookedCLIP or one of its towers; a diffusers pipeline with a CLIP encoder, such as "
    "StableDiffusionPipeline, StableDiffusionXLPipeline, StableDiffusion3Pipeline or FluxPipeline; a CLIP encoder of "
    "transformers; or a multimodal language model of transformers, such as LLaVA or Qwen2.5-VL"
)


@contextmanager
def steer(
    target: Any,
    steering: Steering,
    *,
    site: Site | str | None = None,
    part: str | None = None,
    window: Window | None = None,
) -> Iterator[Movement]:
    """Steer a model while the context is open. Afterwards the model is as before, hooks and attributes included.

        with steer(pipeline, LatentSteering(dictionary, [add([17], 4.0)])) as movement:
            pipeline("a red circle")
        print(movement.conditioning)

    Contexts nest: two dictionaries steer the two encoders of Stable Diffusion XL. A steering at dose 0 hooks nothing.

    Args:
        target: a `HookedCLIP` or one of its towers; a diffusers pipeline; a CLIP encoder of transformers; a multimodal
            language model of transformers.
        steering: the rewrite to apply.
        site: the site to steer; None takes the sites the dictionary was made on. A `HookedCLIP` is steered at all of
            them, other targets must have exactly one.
        part: the part of a pipeline ("text_encoder", "text_encoder_2", "image_embeds", "image_encoder"); None takes
            the first that has the site in the dictionary's width.
        window: the part of the denoising to steer, from 0 (noise) to 1 (picture); None is all of it. Pipelines only.

    Yields:
        The movement: how often activations were rewritten, and how far they and the conditioning moved.

    Raises:
        MismatchError: the site is not as wide as the dictionary.
        InputError: it is not clear where to steer, or the target has no such site.
        NoEffectError: the site does not move what the rest of the target reads, or the call hands over conditioning
            that was made already, so that no encoder runs.
        UnknownNameError: the target has no such hook; the nearest are listed.

    Warns:
        NoEffectWarning: the model ran and nothing changed.
    """
    ports = find_ports(target, steering, site=site, part=part, window=window)
    movement = Movement(" and ".join(str(port.site) for port in ports))
    if steering.idle:
        yield movement
        return
    with movement.told(), ExitStack() as stack:
        for port in ports:
            stack.enter_context(port.attach(movement.counted(_rewrite(steering, port.site)), movement))
        yield movement


def _rewrite(steering: Steering, site: Site) -> Rewrite:
    modality = site.modality

    def rewrite(acts: Tensor, special: Tensor | None) -> Tensor:
        # Some models keep pictures and their tiles on axes of their own.
        rows = acts.flatten(0, -3) if acts.ndim > 3 else acts
        where = special.expand(len(rows)) if special is not None and len(special) == 1 else special
        return steering(rows, modality, where).reshape(acts.shape)

    return rewrite


def find_ports(
    target: Any,
    steering: Steering,
    *,
    site: Site | str | None = None,
    part: str | None = None,
    window: Window | None = None,
) -> list[Port]:
    """Return the ports where a steering enters a target. Raises as `steer` does."""
    chosen = _sites(target, steering, Site.parse(site) if isinstance(site, str) else site)
    if diffusion.is_pipeline(target):
        return [diffusion.port(target, s, part=part, width=steering.d_in, window=window) for s in chosen]
    if part is not None or window is not None:
        raise InputError(
            expected="a diffusers pipeline, where part= or window= is given",
            found=type(target).__name__,
            fix="leave part= and window= out",
        )
    ports = [_port(target, s) for s in chosen]
    for found in ports:
        if found.width != steering.d_in:
            raise MismatchError(
                expected=f"a site as wide as the dictionary, {steering.d_in}",
                found=f"{found.site} of width {found.width}",
                fix="steer the site the dictionary was made on",
            )
    return ports


def _port(target: Any, site: Site) -> Port:
    if hooked.offers(target, site):
        return hooked.port(target, site)
    if multimodal.offers(target, site):
        return multimodal.port(target, site)
    return transformers_clip.port(target, site)


def _offers(target: Any, site: Site) -> bool:
    if diffusion.is_pipeline(target):
        return diffusion.offers(target, site)
    if hooked.offers(target, site) or multimodal.offers(target, site):
        return True
    return isinstance(target, nn.Module) and transformers_clip.side_of(target) == site.side


def _sites(target: Any, steering: Steering, asked: Site | None) -> list[Site]:
    candidates = [asked] if asked is not None else list(steering.sites)
    if not candidates:
        raise InputError(
            expected="a site to steer at",
            found="a dictionary that does not say where it was made",
            fix="give site='...'",
        )
    offered = [s for s in candidates if _offers(target, s)]
    if not offered:
        raise InputError(
            expected=f"a target with {' or '.join(map(str, candidates))}",
            found=type(target).__name__,
            fix=SUPPORTED,
        )
    if len(offered) > 1 and not isinstance(target, HookedCLIP):
        raise InputError(
            expected="one site to steer",
            found=f"{len(offered)}: {', '.join(map(str, offered))}",
            fix=f"choose one, for example site={str(offered[0])!r}",
        )
    return offered
