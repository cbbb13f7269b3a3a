"""Planted codes: latents are made image-only, text-only or shared, with heavy-tailed firing and one confound each."""

from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from cliplens.statistics import auroc
from cliplens_plugins.modality import VARIANTS, classify, classify_fixed, cofiring, mds

Codes = tuple[np.ndarray, np.ndarray, np.ndarray]
Keep = Callable[[tuple[str | int, ...], Callable[[], Any]], Any]
"""Function of a key and of a function that computes the figures under it; returns those kept, or computes them."""
SCORES = (*VARIANTS, "cofiring")


def planted(seed: int, confound: str, n_pairs: int = 4000, per_class: int = 60) -> Codes:
    """Return image codes, caption codes and true classes, with heavy-tailed firing rates and one confound."""
    g = np.random.default_rng(seed)
    k = 3 * per_class
    classes = np.repeat(np.array(["ImgD", "TextD", "CrossD"], dtype="<U6"), per_class)
    rate = np.clip(0.01 * (1 + g.pareto(1.5, k)), None, 0.3)
    draw = g.random((n_pairs, k))
    if confound == "correlated factors":
        common = g.random((n_pairs, k // 3))
        draw = np.where(g.random((n_pairs, k)) < 0.5, np.tile(common, 3), draw)
    concept = draw < rate
    kept = [g.random((n_pairs, k)) < 0.8 for _ in range(2)]
    leak = [g.random((n_pairs, k)) < 0.05 for _ in range(2)]
    on_image = concept & np.select([classes == "ImgD", classes == "TextD"], [np.True_, leak[0]], kept[0])
    on_text = concept & np.select([classes == "TextD", classes == "ImgD"], [np.True_, leak[1]], kept[1])
    size = [np.exp(g.normal(0, 1, k))] * 2
    if confound == "unequal norms":
        size[1] = size[1] * np.exp(g.normal(0, 1, k))
    if confound == "modality gap":
        size[1] = size[1] * 0.25
    image, text = (on * s * g.gamma(2.0, 0.5, (n_pairs, k)) for on, s in zip((on_image, on_text), size, strict=True))
    if confound == "noise":
        image, text = (c + (g.random(c.shape) < 0.01) * 0.1 * g.random(c.shape) for c in (image, text))
    if confound == "split":
        half = (classes == "CrossD") & (g.random(k) < 0.5)
        image[:, half & (np.arange(k) % 2 == 0)] = 0
        text[:, half & (np.arange(k) % 2 == 1)] = 0
    return image, text, classes


CONFOUNDS = ("heavy tails only", "unequal norms", "modality gap", "correlated factors", "noise", "split")


def planted_rows(seeds: int, keep: Keep) -> dict[tuple[str, str], dict[str, list[float]]]:
    """Return accuracies and AUROC by confound and score, one value per seed."""
    found: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for confound in tqdm(CONFOUNDS, delay=2, desc="planted"):
        for seed in range(seeds):
            for name, row in keep(("planted", confound, seed), partial(recovered, confound, seed)).items():
                for figure, value in row.items():
                    found[confound, name][figure].append(value)
    return found


def recovered(confound: str, seed: int) -> dict[str, dict[str, float]]:
    """Return accuracies and AUROC of each score on the planted codes of one seed."""
    image, text, classes = planted(seed, confound)
    shared, found = classes == "CrossD", {}
    for name in SCORES:
        score = cofiring(image, text) if name == "cofiring" else mds(image, text, variant=name)
        known = ~np.isnan(score)
        even = score if name == "cofiring" else -np.abs(score - 0.5)
        found[name] = {"auroc": auroc(even[known & shared], even[known & ~shared])}
        if name != "cofiring":
            found[name]["accuracy_fixed"] = float((classify_fixed(score) == classes).mean())
            found[name]["accuracy_paper"] = float((classify(score) == classes).mean())
    return found
