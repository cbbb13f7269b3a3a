"""`with steer(target, steering):` one door to everything that can be steered."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from cliplens.edits import Steering
from cliplens.errors import InputError, MismatchError
from cliplens.sites import Site
from cliplens_plugins.steering.ports import diffusion, hooked, multimodal, transformers_clip
from cliplens_plugins.steering.ports.port import Port


@contextmanager
def steer(
    target: Any,
    steering: Steering,
    *,
    site: Site | str | None = None,
    part: str | None = None,
    window: diffusion.Window | None = None,
) -> Iterator[None]:
    """Steer a model while the context is open; afterwards it is what it was, hooks and attributes.

        with steer(pipeline, LatentSteering(dictionary, [add([17], 4.0)])):
            pipeline("a red circle")

    Contexts nest: two dictionaries steer the two encoders of Stable Diffusion XL. A steering at dose 0 hooks nothing.

    Args:
        target: a `HookedCLIP` or one of its towers; a diffusers pipeline; a CLIP encoder of transformers; a multimodal
            language model of transformers with such a vision tower.
        steering: what to do there.
        site: where; None is where the dictionary was made, as long as the target has one such place only.
        part: which part of a pipeline ("text_encoder", "text_encoder_2", "image_embeds", "image_encoder"); None is the
            first that is as wide as the dictionary.
        window: which part of the denoising, from 0 (noise) to 1 (picture); None is all of it. Pipelines only.

    Raises:
        MismatchError: the site is not as wide as the dictionary.
        InputError: it is not clear where to steer, or the target has no such place.
        UnknownNameError: the target has no such hook; the nearest are listed.
    """
    port = find_port(target, steering, site=site, part=part, window=window)
    if steering.idle:
        yield
        return
    modality = port.site.modality

    def rewrite(acts: Tensor, special: Tensor | None) -> Tensor:
        where = special.expand(len(acts)) if special is not None and len(special) == 1 else special
        return steering(acts, modality, where)

    with port.attach(rewrite):
        yield


def find_port(
    target: Any,
    steering: Steering,
    *,
    site: Site | str | None = None,
    part: str | None = None,
    window: diffusion.Window | None = None,
) -> Port:
    """Where a steering enters a target. Raises as `steer` does."""
    chosen = _site(target, steering, Site.parse(site) if isinstance(site, str) else site)
    if diffusion.is_pipeline(target):
        return diffusion.port(target, chosen, part=part, width=steering.d_in, window=window)
    if part is not None or window is not None:
        raise InputError(
            expected="a diffusers pipeline, where part= or window= is given",
            found=type(target).__name__,
            fix="leave them out",
        )
    found = _port(target, chosen)
    if found.width != steering.d_in:
        raise MismatchError(
            expected=f"a site as wide as the dictionary, {steering.d_in}",
            found=f"{chosen} of width {found.width}",
            fix="steer the site the dictionary was made on",
        )
    return found


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


def _site(target: Any, steering: Steering, asked: Site | None) -> Site:
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
            fix="give a HookedCLIP, a diffusers pipeline, a CLIP encoder of transformers or a LLaVA-type model",
        )
    if len(offered) > 1:
        raise InputError(
            expected="one place to steer",
            found=f"{len(offered)}: {', '.join(map(str, offered))}",
            fix=f"say which, for example site={str(offered[0])!r}",
        )
    return offered[0]
