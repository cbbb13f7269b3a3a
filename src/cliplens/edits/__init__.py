"""Define edits of latents, and the steering objects that apply them to activations.

    edits = [ablate([3]), add([17], 4.0)]
    steering = LatentSteering(dictionary, edits, dose=1.0)
    steering.rows(embeddings, "image")

The steering plugin attaches steering objects to models; its `docs/steering.md` defines each edit.
"""

from cliplens.edits.constructors import Positions as Positions
from cliplens.edits.constructors import Where as Where
from cliplens.edits.constructors import ablate as ablate
from cliplens.edits.constructors import add as add
from cliplens.edits.constructors import clamp as clamp
from cliplens.edits.constructors import replace as replace
from cliplens.edits.constructors import scale as scale
from cliplens.edits.constructors import set_to as set_to
from cliplens.edits.constructors import swap as swap
from cliplens.edits.direction_steering import DirectionSteering as DirectionSteering
from cliplens.edits.edit import Edit as Edit
from cliplens.edits.edit import check_latents as check_latents
from cliplens.edits.files import load_edits as load_edits
from cliplens.edits.files import save_edits as save_edits
from cliplens.edits.identity import dictionary_sha256 as dictionary_sha256
from cliplens.edits.identity import identity_of as identity_of
from cliplens.edits.latent_steering import LatentSteering as LatentSteering
from cliplens.edits.operations import apply_edit as apply_edit
from cliplens.edits.operations import apply_edits as apply_edits
from cliplens.edits.operations import edited_latents as edited_latents
from cliplens.edits.operations import targets_of as targets_of
from cliplens.edits.steering import Steering as Steering
from cliplens.edits.steering import positions_mask as positions_mask
