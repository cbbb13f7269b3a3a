"""Towers with hooks, as TransformerLens models: the modules that adapters build towers from, and the joint model.

No other package of cliplens imports TransformerLens.
"""

from cliplens.deprecation import deprecated_names
from cliplens.hooked.attention import Heads as Heads
from cliplens.hooked.attention import HookedAttention as HookedAttention
from cliplens.hooked.attention import LayerScale as LayerScale
from cliplens.hooked.attention import PackedAttention as PackedAttention
from cliplens.hooked.attention import additive_mask as additive_mask
from cliplens.hooked.attention import no_layer_scale as no_layer_scale
from cliplens.hooked.bank import Bank as Bank
from cliplens.hooked.base import AbstractTower as AbstractTower
from cliplens.hooked.block import HookedBlock as HookedBlock
from cliplens.hooked.cache import ClipActivationCache as ClipActivationCache
from cliplens.hooked.cache import JointCache as JointCache
from cliplens.hooked.cache import check_open as check_open
from cliplens.hooked.clip import HookedCLIP as HookedCLIP
from cliplens.hooked.compiled import CompiledReading as CompiledReading
from cliplens.hooked.config import JointConfig as JointConfig
from cliplens.hooked.config import TowerConfig as TowerConfig
from cliplens.hooked.head import FrozenHead as FrozenHead
from cliplens.hooked.head import affine as affine
from cliplens.hooked.identity import adapters_in as adapters_in
from cliplens.hooked.identity import description as description
from cliplens.hooked.identity import identity_of as identity_of
from cliplens.hooked.identity import tokenizer_sha256 as tokenizer_sha256
from cliplens.hooked.identity import weights_sha256 as weights_sha256
from cliplens.hooked.layer import HookedLayer as HookedLayer
from cliplens.hooked.layer import HookedStage as HookedStage
from cliplens.hooked.layer import MapLayout as MapLayout
from cliplens.hooked.layer import as_rows as as_rows
from cliplens.hooked.mlp import HookedMLP as HookedMLP
from cliplens.hooked.mlp import LinearRows as LinearRows
from cliplens.hooked.norm import ClosedNorm as ClosedNorm
from cliplens.hooked.norm import HookedLayerNorm as HookedLayerNorm
from cliplens.hooked.norm import hooked_norm as hooked_norm
from cliplens.hooked.opening import open_tower as open_tower
from cliplens.hooked.part import HookedPart as HookedPart
from cliplens.hooked.part import active as active
from cliplens.hooked.part import borrow as borrow
from cliplens.hooked.part import call_hook as call_hook
from cliplens.hooked.part import hook_point as hook_point
from cliplens.hooked.pooler import HookedPooler as HookedPooler
from cliplens.hooked.pooler import Queries as Queries
from cliplens.hooked.pooler import batch_of as batch_of
from cliplens.hooked.pooler import multihead_project as multihead_project
from cliplens.hooked.pooler import split_heads as split_heads
from cliplens.hooked.sizes import check_complete as check_complete
from cliplens.hooked.sizes import check_set_up as check_set_up
from cliplens.hooked.sizes import check_sizes as check_sizes
from cliplens.hooked.special import special_mask as special_mask
from cliplens.hooked.splice import Splice as Splice
from cliplens.hooked.splicing import Splicing as Splicing
from cliplens.hooked.structure import changes as changes
from cliplens.hooked.structure import has_hooks as has_hooks
from cliplens.hooked.text import HookedTextTower as HookedTextTower
from cliplens.hooked.tower import HookedTower as HookedTower
from cliplens.hooked.vision import HookedVisionTower as HookedVisionTower
from cliplens.hooked.vision import patch_grid as patch_grid
from cliplens.hooked.weights import applied_bias as applied_bias
from cliplens.hooked.weights import applied_weight as applied_weight
from cliplens.hooked.weights import is_adapted as is_adapted
from cliplens.hooked.wrappers import attribute as attribute
from cliplens.hooked.wrappers import check_weights as check_weights
from cliplens.hooked.wrappers import unwrapped as unwrapped
from cliplens.hooked.zero_shot import TEMPLATES as TEMPLATES

__getattr__ = deprecated_names(
    __name__,
    {
        "Gain": "cliplens.hooked:LayerScale",
        "fire": "cliplens.hooked:call_hook",
        "no_gain": "cliplens.hooked:no_layer_scale",
        "point": "cliplens.hooked:hook_point",
    },
)
