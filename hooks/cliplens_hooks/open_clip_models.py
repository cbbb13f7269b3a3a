"""The old name of `cliplens_hooks.models.open_clip`, kept for scripts that use it."""

from cliplens.deprecation import deprecated_names

_NAMES = ("OpenClipModels", "describe", "preprocess_of", "text_family", "vision_family")
__getattr__ = deprecated_names(__name__, {name: f"cliplens_hooks.models.open_clip:{name}" for name in _NAMES})
