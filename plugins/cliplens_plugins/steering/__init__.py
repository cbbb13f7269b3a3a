"""Steer CLIP, diffusion pipelines and multimodal language models by editing the latents of a dictionary.

    from cliplens.edits import LatentSteering, ablate, add

    edits = [ablate(by_name(table, "red")), add(by_name(table, "blue"), 4.0)]
    with steer(pipeline, LatentSteering(dictionary, edits)):
        pipeline("a small ring")

The edits are in `cliplens.edits`. `docs/steering.md` defines each edit, lists the sites it can be applied at,
and says how its effect is measured.
"""

from importlib import import_module
from typing import Any

from cliplens.deprecation import deprecated_names

_FROM = {
    "clip_effects": ("cosine_shift", "mean_prompts", "retrieval", "zero_shot"),
    "control": ("RandomControl",),
    "directions": ("centroids", "difference_of_means", "random_direction"),
    "effects": ("Effect", "Share", "best_within", "dose_of_breach", "dose_slope", "effect", "share_of"),
    "mean_codes": ("MeanCodes",),
    "mixing": ("mixed_latents",),
    "parsing": ("parse_edit",),
    "pictures": ("burnt", "save_strip", "sharpness"),
    "selection": ("best_latents", "by_class", "by_name", "label_correlation", "typical_level"),
    "context": ("steer",),
    "through_projection": ("ThroughProjection",),
}
_HOME = {name: module for module, names in _FROM.items() for name in names}
_MOVED = {
    name: f"cliplens.edits:{name}"
    for name in (
        "DirectionSteering",
        "LatentSteering",
        "Steering",
        "ablate",
        "add",
        "apply_edit",
        "apply_edits",
        "clamp",
        "dictionary_sha256",
        "load_edits",
        "replace",
        "save_edits",
        "scale",
        "set_to",
        "swap",
    )
}
_moved = deprecated_names(__name__, _MOVED)

__all__ = sorted(_HOME)  # noqa: PLE0605  the names are listed once, above


def __getattr__(name: str) -> Any:
    # Lazy, so that `cliplens --help` can show the command without importing torch.
    if name not in _HOME:
        return _moved(name)
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
