"""Generate images from embeddings, to show the effect of an edit.

The generator `world` draws images of the embedded world. Its weights are part of the package.
"""

from typing import TYPE_CHECKING

from cliplens.deprecation import deprecated_names
from cliplens.lazy import export_lazily

if TYPE_CHECKING:
    from cliplens_plugins.generators.world import WorldGenerator as WorldGenerator
    from cliplens_plugins.generators.world_factor_reader import WorldFactorReader as WorldFactorReader
    from cliplens_plugins.generators.world_factor_reader import load_factor_reader as load_factor_reader
    from cliplens_plugins.generators.world_factor_reader import train_factor_reader as train_factor_reader

__getattr__ = deprecated_names(
    __name__,
    {
        "WorldJudge": "cliplens_plugins.generators.world_factor_reader:WorldFactorReader",
        "load_judge": "cliplens_plugins.generators.world_factor_reader:load_factor_reader",
        "train_judge": "cliplens_plugins.generators.world_factor_reader:train_factor_reader",
    },
)

export_lazily(__name__)
