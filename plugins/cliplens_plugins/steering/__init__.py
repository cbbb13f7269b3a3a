"""Steer CLIP, diffusion pipelines and multimodal language models by editing the latents of a dictionary.

    from cliplens.edits import LatentSteering, ablate, add

    edits = [ablate(by_name(table, "red")), add(by_name(table, "blue"), 4.0)]
    with steer(pipeline, LatentSteering(dictionary, edits)):
        pipeline("a small ring")

The edits are in `cliplens.edits`. `docs/steering.md` defines each edit, lists the sites it can be applied at,
and says how its effect is measured.
"""

from typing import TYPE_CHECKING

from cliplens.deprecation import deprecated_names
from cliplens.lazy import export_lazily

if TYPE_CHECKING:
    from cliplens_plugins.steering.clip_effects import cosine_shift as cosine_shift
    from cliplens_plugins.steering.clip_effects import mean_prompts as mean_prompts
    from cliplens_plugins.steering.clip_effects import retrieval as retrieval
    from cliplens_plugins.steering.clip_effects import zero_shot as zero_shot
    from cliplens_plugins.steering.context import steer as steer
    from cliplens_plugins.steering.control import RandomControl as RandomControl
    from cliplens_plugins.steering.directions import centroids as centroids
    from cliplens_plugins.steering.directions import difference_of_means as difference_of_means
    from cliplens_plugins.steering.directions import random_direction as random_direction
    from cliplens_plugins.steering.effects import Effect as Effect
    from cliplens_plugins.steering.effects import Share as Share
    from cliplens_plugins.steering.effects import best_within as best_within
    from cliplens_plugins.steering.effects import dose_of_breach as dose_of_breach
    from cliplens_plugins.steering.effects import dose_slope as dose_slope
    from cliplens_plugins.steering.effects import effect as effect
    from cliplens_plugins.steering.effects import share_of as share_of
    from cliplens_plugins.steering.mean_codes import MeanCodes as MeanCodes
    from cliplens_plugins.steering.mixing import mixed_latents as mixed_latents
    from cliplens_plugins.steering.parsing import parse_edit as parse_edit
    from cliplens_plugins.steering.pictures import burnt as burnt
    from cliplens_plugins.steering.pictures import save_strip as save_strip
    from cliplens_plugins.steering.pictures import sharpness as sharpness
    from cliplens_plugins.steering.selection import best_latents as best_latents
    from cliplens_plugins.steering.selection import by_class as by_class
    from cliplens_plugins.steering.selection import by_name as by_name
    from cliplens_plugins.steering.selection import label_correlation as label_correlation
    from cliplens_plugins.steering.selection import typical_level as typical_level
    from cliplens_plugins.steering.through_projection import ThroughProjection as ThroughProjection

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
__getattr__ = deprecated_names(__name__, _MOVED)

export_lazily(__name__)
