"""Steering: edits of a dictionary's latents, put into CLIP itself, diffusion pipelines and multimodal language models.

    edits = [ablate(by_name(table, "red")), add(by_name(table, "blue"), 4.0)]
    with steer(pipeline, LatentSteering(dictionary, edits)):
        pipeline("a small ring")

`docs/steering.md` says what each edit does, where it can go, and how it is measured.
"""

from importlib import import_module
from typing import Any

_FROM = {
    "clip_effects": ("cosine_shift", "mean_prompts", "retrieval", "zero_shot"),
    "directions": ("centroids", "difference_of_means", "random_direction"),
    "edits": ("ablate", "add", "clamp", "replace", "scale", "set_to", "swap"),
    "effects": ("Effect", "Share", "best_within", "dose_of_breach", "dose_slope", "effect", "share_of"),
    "files": ("load_edits", "save_edits"),
    "identity": ("dictionary_sha256",),
    "mean_codes": ("MeanCodes",),
    "operations": ("apply_edit", "apply_edits"),
    "parsing": ("parse_edit",),
    "pictures": ("burnt", "save_strip", "sharpness"),
    "selection": ("best_latents", "by_class", "by_name", "label_correlation", "typical_level"),
    "context": ("steer",),
    "steering": ("DirectionSteering", "LatentSteering", "Steering"),
}
_HOME = {name: module for module, names in _FROM.items() for name in names}

__all__ = sorted(_HOME)  # noqa: PLE0605  the names are listed once, above


def __getattr__(name: str) -> Any:
    # Lazy, so that `cliplens --help` can show the command without importing torch.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
