"""The old name of `cliplens_hooks.models.world`, kept for scripts that use it."""

from cliplens.deprecation import deprecated_names

_NAMES = ("CONTEXT", "NAMES", "PREPROCESS", "Preprocess", "WorldModels", "pixels_to_tensor", "world_tokenizer")
__getattr__ = deprecated_names(__name__, {name: f"cliplens_hooks.models.world:{name}" for name in _NAMES})
