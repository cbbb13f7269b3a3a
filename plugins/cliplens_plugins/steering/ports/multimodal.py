"""Multimodal language models of transformers (LLaVA and its kin): edits inside the vision tower change the answer."""

from typing import Any

from torch import nn

from cliplens.sites import Site
from cliplens_plugins.steering.ports import transformers_clip
from cliplens_plugins.steering.ports.port import Port


def vision_tower_of(target: Any) -> nn.Module | None:
    """The vision tower inside a multimodal model; None when there is none of a kind we know."""
    for holder in (target, getattr(target, "model", None)):
        tower = getattr(holder, "vision_tower", None)
        if isinstance(tower, nn.Module) and transformers_clip.side_of(tower) == "vision":
            return tower
    return None


def offers(target: Any, site: Site) -> bool:
    """Whether the target has a vision tower and the site lies in one."""
    return site.side == "vision" and isinstance(target, nn.Module) and vision_tower_of(target) is not None


def port(target: Any, site: Site) -> Port:
    """The port of a site of the vision tower."""
    tower = vision_tower_of(target)
    assert tower is not None
    return transformers_clip.port(tower, site)
