"""The embedded world: pictures and captions drawn by a program, with factors whose modality is known."""

from cliplens.world.captions import captions as captions
from cliplens.world.captions import lexicon as lexicon
from cliplens.world.captions import value_sentences as value_sentences
from cliplens.world.factors import FACTORS as FACTORS
from cliplens.world.factors import IMAGE_ONLY as IMAGE_ONLY
from cliplens.world.factors import SHARED as SHARED
from cliplens.world.factors import TEXT_ONLY as TEXT_ONLY
from cliplens.world.factors import Factor as Factor
from cliplens.world.factors import Scenes as Scenes
from cliplens.world.factors import draw_scenes as draw_scenes
from cliplens.world.pairs import WorldImages as WorldImages
from cliplens.world.pairs import ground_truth as ground_truth
from cliplens.world.pairs import scene_pairs as scene_pairs
from cliplens.world.pairs import world_pairs as world_pairs
from cliplens.world.render import SIDE as SIDE
from cliplens.world.render import object_masks as object_masks
from cliplens.world.render import render as render
