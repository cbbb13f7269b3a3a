"""The old name of `cliplens_hooks.training.world`, kept for scripts and command lines that use it."""

import runpy

from cliplens.deprecation import deprecated_names

_NAMES = ("RECIPES", "Bags", "Recipe", "pruned_merges", "save_merges", "save_model", "schedule", "train")
__getattr__ = deprecated_names(__name__, {name: f"cliplens_hooks.training.world:{name}" for name in _NAMES})

if __name__ == "__main__":
    runpy.run_module("cliplens_hooks.training.world", run_name="__main__")
