"""The old name of `cliplens_hooks.towers.open_clip`, kept for scripts that use it."""

from cliplens.deprecation import deprecated_names

__getattr__ = deprecated_names(__name__, {"OpenClipTower": "cliplens_hooks.towers.open_clip:OpenClipTower"})
