"""Steer the vision tower inside a multimodal language model of transformers, which changes its answers.

On the first call, the model also runs without steering, up to the language model. The two inputs of the language model
are compared, and a site that does not change them is refused. Layers of the tower before the site run once.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from cliplens.sites import Site
from cliplens_plugins.steering.ports import transformers_clip
from cliplens_plugins.steering.ports.compiled import uncompiled, unwrapped
from cliplens_plugins.steering.ports.movement import Movement
from cliplens_plugins.steering.ports.port import Port
from cliplens_plugins.steering.ports.replay import Replay
from cliplens_plugins.steering.ports.rewriting import Rewrite

_TOWERS = ("vision_tower", "vision_model", "visual", "vision_encoder")
_LANGUAGE = ("language_model", "text_model")


def vision_tower_of(target: Any) -> nn.Module | None:
    """Return the vision tower of a multimodal model; None if there is none of a known type."""
    return _held(target, _TOWERS, lambda tower: transformers_clip.side_of(tower) == "vision")


def language_model_of(target: Any) -> nn.Module | None:
    """Return the language model of a multimodal model; None if there is none."""
    return _held(target, _LANGUAGE, lambda language: transformers_clip.side_of(language) is None)


def described(target: Any) -> str:
    """Return a model's class and its vision tower, for refusals."""
    tower = _held(target, _TOWERS, lambda _: True)
    kind = type(unwrapped(target) if isinstance(target, nn.Module) else target).__name__
    if tower is None or vision_tower_of(target) is not None:
        return kind
    return f"{kind}, whose vision tower {type(tower).__name__} does not keep its layers as CLIP does"


def offers(target: Any, site: Site) -> bool:
    """Return whether the site is a vision site and the target a multimodal language model with a vision tower."""
    if site.side != "vision" or not isinstance(target, nn.Module):
        return False
    return vision_tower_of(target) is not None and language_model_of(target) is not None


def port(target: Any, site: Site) -> Port:
    """Return the port of a site of the vision tower.

    Raises:
        UnknownNameError: the tower has no such site; similar names are listed.
    """
    tower = vision_tower_of(target)
    assert tower is not None
    inner = transformers_clip.port(tower, site)
    return Port(site, inner.width, lambda rewrite, movement: _attached(target, tower, site, rewrite, movement))


@contextmanager
def _attached(target: nn.Module, tower: nn.Module, site: Site, rewrite: Rewrite, movement: Movement) -> Iterator[None]:
    language = language_model_of(target)
    assert language is not None
    plain: dict[str, Any] = {}
    replay = Replay(transformers_clip.before_site(tower, site.hook))
    with ExitStack() as stack:
        second_pass = stack.enter_context(ExitStack())
        stack.enter_context(uncompiled(target))
        root = unwrapped(target)

        def run_plain(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            movement.runs += 1
            if movement.compared or plain.get("running"):
                return
            plain["running"] = True
            try:
                with replay.recording():
                    plain["inputs"] = _inputs_of(language, root, args, kwargs)
            finally:
                plain["running"] = False
            second_pass.enter_context(replay.replaying())

        def gate(acts: Any, special: Any) -> Any:
            return acts if plain.get("running") else rewrite(acts, special)

        def compared(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if not plain.get("running"):
                second_pass.close()
            if movement.calls and not movement.compared and not plain.get("running") and "inputs" in plain:
                movement.compare(plain.pop("inputs"), _conditioning(args, kwargs))
                movement.refuse_unread(str(site), type(root).__name__, _instead(tower, site))

        for module, hook in ((root, run_plain), (language, compared)):
            handle = module.register_forward_pre_hook(hook, with_kwargs=True)
            stack.callback(handle.remove)
        stack.enter_context(transformers_clip.attached(tower, site.hook, gate))
        yield


class _Reached(Exception):  # noqa: N818  it stops a forward pass and is no error
    """Raised when the forward pass reaches the language model."""


def _inputs_of(language: nn.Module, root: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run the model on these arguments up to the language model; return the inputs of the language model."""
    found: dict[str, Any] = {}

    def reached(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        found["inputs"] = _conditioning(args, kwargs)
        raise _Reached

    handle = language.register_forward_pre_hook(reached, with_kwargs=True, prepend=True)
    try:
        with torch.no_grad():
            root.forward(*args, **kwargs)
    except _Reached:
        pass
    finally:
        handle.remove()
    return found.get("inputs", ())


def _conditioning(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return the arguments that can hold image features, leaving out caches and position embeddings."""
    return [
        *args,
        *(v for k, v in sorted(kwargs.items()) if "past" not in k and "position" not in k and "mask" not in k),
    ]


def _instead(tower: nn.Module, site: Site) -> str:
    last = transformers_clip.n_layers(tower) - 2
    layer = last if site.layer is None else min(last, site.layer - 1)
    return f"steer an earlier block, such as vision.blocks.{max(layer, 0)}.hook_resid_post"


def _held(target: Any, names: tuple[str, ...], fits: Any) -> nn.Module | None:
    for holder in (target, getattr(target, "model", None)):
        for name in names:
            found = getattr(holder, name, None)
            if isinstance(found, nn.Module) and fits(unwrapped(found)):
                return unwrapped(found)
    return None
