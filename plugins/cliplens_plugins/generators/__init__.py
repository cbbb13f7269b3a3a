"""Generators: what makes pictures from embeddings, so that an edit can be seen.

`world` is the generator of the embedded world, trained and shipped here; its judge is rebuilt by
`python -m cliplens_plugins.generators.world_training judge`.
"""

from cliplens_plugins.generators.world import WorldGenerator as WorldGenerator
from cliplens_plugins.generators.world_judge import WorldJudge as WorldJudge
from cliplens_plugins.generators.world_judge import load_judge as load_judge
from cliplens_plugins.generators.world_judge import train_judge as train_judge
