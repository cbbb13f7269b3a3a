"""Return rows of zero-shot classification and retrieval, for image embeddings with edited colour."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from _steering.data import DOSES, REFERENCE_SEED, Sample, embedded, sample_clip
from _steering.methods import Chosen, methods
from _steering.scoring import grouped
from cliplens.hooked import HookedCLIP
from cliplens.world import FACTORS, SHARED, draw_scenes
from cliplens_plugins.steering import (
    cosine_shift,
    effect,
    mean_prompts,
    retrieval,
    zero_shot,
)


def clip_itself(chosen: Chosen, sample: Sample, n: int, seed: int) -> list[dict[str, Any]]:
    """Return rows of zero-shot classification and retrieval, for image embeddings with edited colour."""
    clip, attribute = sample_clip(), "colour"
    banks, rng = prompt_banks(clip), np.random.default_rng(seed)
    own = sample.scenes[attribute][:n]
    target = (own + rng.integers(1, len(FACTORS[attribute].values), n)) % len(FACTORS[attribute].values)
    acts, captions = sample.of("image")[:n], sample.of("text")[:n]
    reworded = embedded(clip, sample.scenes.rows(np.arange(n)).replaced(**{attribute: target})).of("text")
    before, found = zero_shot(acts, banks), []
    for name, move in methods(chosen, "image", attribute, seed).items():
        for dose in (0.0, *DOSES):
            moved = grouped(acts, own, target, move, dose)
            one = effect(before, zero_shot(moved, banks), attribute, target, dose=dose)
            shift = cosine_shift(acts, moved, banks)
            at_target = float(np.mean(shift[attribute][target]))
            others = max(float(np.abs(v).max()) for a, v in shift.items() if a != attribute)
            ranks = [retrieval(moved, c, at=(1,))["image_to_text_r1"] for c in (captions, reworded)]
            found.append(
                {"method": name, "dose": dose, "success": one.success.share, "worst": one.worst, "shift": at_target}
                | {"other shift": others, "R@1 own caption": ranks[0], "R@1 reworded caption": ranks[1]}
            )
    return found


def prompt_banks(clip: HookedCLIP, contexts: int = 64) -> dict[str, Tensor]:
    """Return one text embedding per value of each shared attribute: the mean over contexts common to all values."""
    scenes, banks = draw_scenes(contexts, seed=REFERENCE_SEED + 1), {}
    for attribute in SHARED:
        n_values = len(FACTORS[attribute].values)
        per_value = [embedded(clip, scenes.replaced(**{attribute: v})).of("text") for v in range(n_values)]
        banks[attribute] = mean_prompts(torch.stack(per_value))
    return banks
