"""Calibration: coverage of the 95 % intervals by number of firings, and false discoveries at 4,096 latents."""

import numpy as np
import torch

from cliplens.records import PairedCodes, SparseCodes
from cliplens.statistics import benjamini_hochberg, percentile_interval
from cliplens.tally import Sums
from cliplens_plugins.modality.bootstrap import add_replicates, replicates
from cliplens_plugins.modality.interval import interval
from cliplens_plugins.modality.null import swap_p
from cliplens_plugins.modality.sums import add_pairs


def coverage(n: int, trials: int, seed: int) -> dict[str, float]:
    """Return the coverage of the interval, and of a simple percentile interval, for latents with n firings."""
    g = np.random.default_rng(seed)
    true = np.tile([0.03, 0.1, 0.3, 0.5, 0.8, 0.97], 20)
    hits: dict[str, list[float]] = {"ours": [], "percentile": []}
    for trial in range(trials):
        pure = g.random((n, len(true))) < 0.5
        ratio = np.where(pure, g.random((n, len(true))) < true, g.beta(8 * true, 8 * (1 - true), (n, len(true))))
        size = g.gamma(2, size=ratio.shape)
        sides = [SparseCodes.from_dense(torch.tensor(s)) for s in (ratio * size, (1 - ratio) * size)]
        codes = PairedCodes(tuple(f"{seed}-{trial}-{i}" for i in range(n)), *sides)
        sums, drawn = Sums(), Sums()
        add_pairs(sums, codes)
        add_replicates(drawn, codes, 200)
        ours, bare = interval(sums, drawn), percentile_interval(replicates(drawn).numpy())
        hits["ours"].append(float(((ours.low <= true) & (true <= ours.high)).mean()))
        hits["percentile"].append(float(((bare[0] <= true) & (true <= bare[1])).mean()))
    return {name: float(np.mean(values)) for name, values in hits.items()}


def false_discoveries(seed: int, repeats: int = 40) -> tuple[float, float]:
    """Return two false discovery rates at 4,096 latents and q <= .05.

    The first is the share of repeats with at least one discovery where no latent has an effect. The second is the share
    of false discoveries among all discoveries where 1,000 latents have one.
    """
    g = np.random.default_rng(seed)
    none, among = [], []
    for _ in range(repeats):
        n = np.minimum(2 + g.pareto(0.8, 4096) * 5, 1000).astype(int)
        latent, real = np.repeat(np.arange(4096), n), np.arange(4096) < 1000
        for share, out in ((np.full(4096, 0.5), none), (np.where(real, 0.9, 0.5), among)):
            d = np.where(g.random(len(latent)) < share[latent], 0.5, -0.5) * g.choice([1.0, 0.6], len(latent))
            d1, d2 = (torch.tensor(np.bincount(latent, w, minlength=4096)) for w in (d, d * d))
            found = benjamini_hochberg(swap_p(d1, d2)) <= 0.05
            out.append(found.any() if out is none else (found & ~real).sum() / max(1, found.sum()))
    return float(np.mean(none)), float(np.mean(among))
