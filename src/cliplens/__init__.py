"""cliplens: interpret CLIP models with TransformerLens and SAELens.

    clip = cliplens.load("ViT-B-32", pretrained="laion2b_s34b_b79k")      # or "world": embedded, no download
    logits, cache = clip.run_with_cache(images, tokens, names_filter="vision.blocks.9.hook_resid_post")
    provider = cliplens.activations(clip, cliplens.read_pairs("captions.csv"))
    trainer = SAETrainer(cfg=cfg, sae=sae, data_provider=provider)         # of SAELens

Heavy packages such as torch are imported only when one of these names is used.
"""

from difflib import get_close_matches
from importlib import import_module
from typing import Any

__version__ = "0.2.0"

_HOME = {
    "activations": "cliplens.api",
    "caption_dataset": "cliplens.api",
    "image_dataset": "cliplens.api",
    "install": "cliplens.api",
    "load": "cliplens.api",
    "read_pairs": "cliplens.api",
    "steer": "cliplens.api",
    "wrap": "cliplens.api",
    "Dictionary": "cliplens.sae",
    "HookedCLIP": "cliplens.hooked",
    "LatentTable": "cliplens.records",
    "Pair": "cliplens.records",
    "Site": "cliplens.sites",
    "CliplensError": "cliplens.errors",
}

__all__ = sorted(_HOME)  # noqa: PLE0605  the names are listed once, above


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        near = get_close_matches(name, _HOME, n=1)
        hint = f"; did you mean {near[0]!r}?" if near and not name.startswith("_") else ""
        raise AttributeError(f"module 'cliplens' has no attribute {name!r}{hint}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
