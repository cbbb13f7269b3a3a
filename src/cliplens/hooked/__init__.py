"""Towers as TransformerLens roots: the parts every family is made of, and the joint model. The only door to TransformerLens."""

from cliplens.hooked.attention import Gain as Gain
from cliplens.hooked.attention import HookedAttention as HookedAttention
from cliplens.hooked.attention import PackedAttention as PackedAttention
from cliplens.hooked.attention import no_gain as no_gain
from cliplens.hooked.block import HookedBlock as HookedBlock
from cliplens.hooked.cache import ClipActivationCache as ClipActivationCache
from cliplens.hooked.cache import JointCache as JointCache
from cliplens.hooked.clip import HookedCLIP as HookedCLIP
from cliplens.hooked.config import TowerConfig as TowerConfig
from cliplens.hooked.identity import identity_of as identity_of
from cliplens.hooked.identity import tokenizer_sha256 as tokenizer_sha256
from cliplens.hooked.identity import weights_sha256 as weights_sha256
from cliplens.hooked.mlp import HookedMLP as HookedMLP
from cliplens.hooked.norm import HookedLayerNorm as HookedLayerNorm
from cliplens.hooked.part import HookedPart as HookedPart
from cliplens.hooked.part import active as active
from cliplens.hooked.part import borrow as borrow
from cliplens.hooked.part import fire as fire
from cliplens.hooked.part import point as point
from cliplens.hooked.pooler import HookedPooler as HookedPooler
from cliplens.hooked.text import HookedTextTower as HookedTextTower
from cliplens.hooked.tower import HookedTower as HookedTower
from cliplens.hooked.vision import HookedVisionTower as HookedVisionTower
