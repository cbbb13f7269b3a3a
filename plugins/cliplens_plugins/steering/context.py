"""Attach steering to a model: `with steer(target, steering):`."""

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
    "pass a HookedCLIP or one of its towers; a diffusers pipeline with a CLIP encoder on that side, such as "
    "StableDiffusionPipeline, StableDiffusionXLPipeline, StableDiffusion3Pipeline, FluxPipeline or "
    "KandinskyV22PriorPipeline; a CLIP encoder of transformers; or a multimodal language model of transformers with a "
    "CLIP, SigLIP or Qwen tower, such as LLaVA or Qwen2.5-VL"
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
    """Steer a model while the context is open. Afterwards the model is restored, including hooks and attributes.

        with steer(pipeline, LatentSteering(dictionary, [add([17], 4.0)])) as movement:
            pipeline("a red circle")
        print(movement.conditioning)

    Contexts nest: two dictionaries steer the two encoders of Stable Diffusion XL. A steering at dose 0 hooks nothing.

    Args:
        target: a `HookedCLIP` or one of its towers; a diffusers pipeline; a CLIP encoder of transformers; a multimodal
            language model of transformers.
        steering: the rewrite to apply.
        site: the site to steer; None means the sites on which the dictionary was trained. A `HookedCLIP` is steered at
            all of them; other targets must have exactly one of them.
        part: the part of a pipeline ("text_encoder", "text_encoder_2", "image_embeds", "image_encoder"); None means the
            first part that has the site with the dictionary's width.
        window: the part of the denoising to steer, from 0 (noise) to 1 (picture); None is all of it. Pipelines only.

    Yields:
        The movement: the number of rewrites, and the relative change of the activations and of the conditioning.

    Raises:
        MismatchError: the width of the site is not that of the dictionary.
        InputError: no site is given and the target has none or several of the dictionary's sites.
        NoEffectError: the rest of the target does not depend on the site, or the call passes precomputed conditioning
            (such as `prompt_embeds`), so that no encoder runs.
        UnknownNameError: the target has no such hook; similar names are listed.

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
        # Some models have separate axes for pictures and for their tiles.
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
    """Return the ports at which a steering is attached to a target. Raises the errors of `steer`."""
    chosen = _sites(target, steering, Site.parse(site) if isinstance(site, str) else site)
    if diffusion.is_pipeline(target):
        return [diffusion.port(target, s, part=part, width=steering.d_in, window=window) for s in chosen]
    if part is not None or window is not None:
        raise InputError(
            expected="a diffusers pipeline, since part= or window= is given",
            found=type(target).__name__,
            fix="remove part= and window=",
        )
    ports = [_port(target, s) for s in chosen]
    for found in ports:
        if found.width != steering.d_in:
            raise MismatchError(
                expected=f"a site of the dictionary's width, {steering.d_in}",
                found=f"{found.site} of width {found.width}",
                fix="steer the site on which the dictionary was trained",
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


def _described(target: Any) -> str:
    return diffusion.described(target) if diffusion.is_pipeline(target) else multimodal.described(target)


def _sites(target: Any, steering: Steering, asked: Site | None) -> list[Site]:
    candidates = [asked] if asked is not None else list(steering.sites)
    if not candidates:
        raise InputError(
            expected="a site to steer at",
            found="a dictionary without a record of its site",
            fix="pass site=, for example site='text.blocks.10.hook_resid_post'",
        )
    offered = [s for s in candidates if _offers(target, s)]
    if len(offered) > 1:
        offered = [s for s in offered if diffusion.has(target, s)] or offered
    if not offered:
        raise InputError(
            expected=f"a target with {' or '.join(map(str, candidates))}",
            found=_described(target),
            fix=SUPPORTED,
        )
    if len(offered) > 1 and not isinstance(target, HookedCLIP):
        raise InputError(
            expected="one site to steer",
            found=f"{len(offered)}: {', '.join(map(str, offered))}",
            fix=f"choose one, for example site={str(offered[0])!r}",
        )
    return offered
