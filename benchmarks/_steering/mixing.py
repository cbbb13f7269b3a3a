"""Replace the codes of one modality class in captions by those of a reference picture of another scene."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from _steering.data import ALPHAS, Sample
from _steering.methods import Chosen
from _steering.readers import Reader
from cliplens.edits import LatentSteering, swap
from cliplens.records import PairedActs
from cliplens.world import FACTORS, SHARED
from cliplens_plugins.steering import mixed_latents, share_of


def mixing(
    chosen: Chosen, sample: Sample, other: Sample, readers: Mapping[str, Reader], n: int, seed: int
) -> list[dict[str, Any]]:
    """Return rows of the paper's intervention: captions with codes of one class from a reference picture."""
    text, reference = sample.of("text")[:n], other.of("image")[:n]
    ids = tuple(str(i) for i in range(n))
    codes = chosen.dictionary.encode(PairedActs(ids, reference, None)).image
    assert codes is not None
    found: list[dict[str, Any]] = []
    for reader_name, read in readers.items():
        before = read(text, "text")
        for kind, latents in classes_to_mix(chosen, seed).items():
            for alpha in ALPHAS:
                if not latents:
                    continue
                steering = LatentSteering(chosen.dictionary, [swap(latents, alpha)], reference=codes.dense())
                after = read(steering.rows(text, "text"), "text")
                for attribute in before:
                    taken = after[attribute] == other.scenes[attribute][:n]
                    differs = sample.scenes[attribute][:n] != other.scenes[attribute][:n]
                    rows = differs if attribute in SHARED else np.ones(n, dtype=bool)
                    changed, got = share_of((before[attribute] != after[attribute])[rows]), share_of(taken[rows])
                    found.append(
                        {
                            "reader": reader_name,
                            "class": kind,
                            "latents": len(latents),
                            "alpha": alpha,
                            "attribute": attribute,
                            "seed": seed,
                            "changed": changed.share,
                            "changed_low": changed.low,
                            "changed_high": changed.high,
                            "taken": got.share,
                            "chance": 1 / len(FACTORS[attribute].values),
                        }
                    )
    return found


def classes_to_mix(chosen: Chosen, seed: int) -> dict[str, list[int]]:
    """Return the latents of each class, of all, and as many random ones as ImgD has."""
    found = mixed_latents(chosen.classes, seed)
    kept = ("ImgD", "TextD", "CrossD", "all", "random, as many as ImgD")
    return {name: found.get(name, []) for name in kept}
