"""Draw scenes, embed them, and train dictionaries on the embeddings."""

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

import cliplens
from cliplens.hooked import HookedCLIP
from cliplens.records import PairedActs
from cliplens.sae import Dictionary, dictionary_config, train
from cliplens.sites import Modality, Site
from cliplens.stream import stream
from cliplens.world import SHARED, Scenes, scene_pairs, world_pairs

VISIBLE = (*SHARED, "texture", "tint", "light")
DOSES = (0.5, 1.0, 1.5, 2.0, 3.0)
QUICK_DOSES = (1.0, 2.0)
ALPHAS = (0.5, 1.0)
TRAIN_SEED, CHOOSE_SEED, SCORE_SEED, REFERENCE_SEED = 0, 11, 12, 13
LEAST = 0.35
"""Minimum correlation of a latent with a value that it represents."""
SKIPPED = ("latents: all values out, target in", "latents: target in", "random latents", "difference of means")
SKIPPED += ("latents: mean codes of 2", "latents: mean codes of 4")
"""Methods that are scored only on embeddings, because drawing is slow and these are less informative."""
FAINT = 0.15
"""Minimum correlation of a latent that takes part in an edit of mean codes."""
FEW = (2, 4, 8)
"""Numbers of latents in a restricted edit of mean codes."""
LIMIT = 0.1
CHOOSING = 512
"""Number of scenes of the selection split on which a dose is chosen."""


@dataclass(frozen=True, eq=False)
class Sample:
    """Scenes with unit-norm embeddings of their pictures and captions."""

    scenes: Scenes
    acts: PairedActs

    def of(self, modality: Modality) -> Tensor:
        found = self.acts.of(modality)
        assert found is not None
        return found


@cache
def sample_clip() -> HookedCLIP:
    """Return the embedded model, opened once."""
    return cliplens.load("world", device="cpu")


def embedded(clip: HookedCLIP, scenes: Scenes) -> Sample:
    """Return the scenes with the unit-norm embeddings of their pictures and captions."""
    pairs = scene_pairs(scenes, ids=[str(i) for i in range(len(scenes))])
    sites = [Site("vision", "hook_embedding"), Site("text", "hook_embedding")]
    parts = list(stream(clip, pairs, sites, forward_batch=256))
    image, text = (torch.cat([p.of(m) for p in parts]) for m in ("image", "text"))  # type: ignore[misc]
    return Sample(scenes, PairedActs(tuple(i for p in parts for i in p.ids), image.float(), text.float()))


def said(modality: Modality) -> tuple[str, ...]:
    """Return the attributes that embeddings of the modality encode and pictures show."""
    return VISIBLE if modality == "image" else SHARED


def trained(clip: HookedCLIP, seed: int, d_sae: int, k: int, rows: int) -> Dictionary:
    """Return a dictionary over both modalities."""
    provider = cliplens.activations(clip, world_pairs(16_384, seed=TRAIN_SEED), batch_size=1024, seed=seed)
    config = dictionary_config("batchtopk", provider.d_in, d_sae, k=k)
    return train(config, provider, samples=rows, batch_size=1024, lr=1e-3, seed=seed, device="cpu")
