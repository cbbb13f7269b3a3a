"""Steering: edits of a dictionary's latents, put into CLIP itself, diffusion pipelines and multimodal language models.

    edits = [ablate(by_name(table, "red")), add(by_name(table, "blue"), 4.0)]
    with steer(pipeline, LatentSteering(dictionary, edits)):
        pipeline("a small ring")

`docs/steering.md` says what each edit does, where it can go, and how it is measured.
"""

from cliplens_plugins.steering.directions import centroids as centroids
from cliplens_plugins.steering.directions import difference_of_means as difference_of_means
from cliplens_plugins.steering.directions import random_direction as random_direction
from cliplens_plugins.steering.edits import ablate as ablate
from cliplens_plugins.steering.edits import add as add
from cliplens_plugins.steering.edits import clamp as clamp
from cliplens_plugins.steering.edits import replace as replace
from cliplens_plugins.steering.edits import scale as scale
from cliplens_plugins.steering.edits import set_to as set_to
from cliplens_plugins.steering.edits import swap as swap
from cliplens_plugins.steering.files import load_edits as load_edits
from cliplens_plugins.steering.files import save_edits as save_edits
from cliplens_plugins.steering.identity import dictionary_sha256 as dictionary_sha256
from cliplens_plugins.steering.operations import apply_edit as apply_edit
from cliplens_plugins.steering.operations import apply_edits as apply_edits
from cliplens_plugins.steering.selection import best_latents as best_latents
from cliplens_plugins.steering.selection import by_class as by_class
from cliplens_plugins.steering.selection import by_name as by_name
from cliplens_plugins.steering.selection import label_correlation as label_correlation
from cliplens_plugins.steering.selection import typical_level as typical_level
from cliplens_plugins.steering.steer import steer as steer
from cliplens_plugins.steering.steering import DirectionSteering as DirectionSteering
from cliplens_plugins.steering.steering import LatentSteering as LatentSteering
from cliplens_plugins.steering.steering import Steering as Steering
