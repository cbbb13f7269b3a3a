"""Rank the matches of many names among the background samples on which each latent is silent.

The background matches of a name are computed and sorted once for all latents and lists that use the name. The few
samples on which a latent fires are then subtracted from its ranks.
"""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from cliplens.sites import Modality
from cliplens_plugins.autointerp.ranks import Ranks
from cliplens_plugins.autointerp.space import SilentSamples, blocks
from cliplens_plugins.autointerp.views import View


def background_ranks(
    view: View,
    modality: Modality,
    names: Int[np.ndarray, " entry"],
    latents: Int[np.ndarray, " entry"],
    positive: Float[np.ndarray, "entry positive"],
    valid: Bool[np.ndarray, "entry positive"],
    silent: SilentSamples,
) -> Iterator[tuple[Int[np.ndarray, " ranked"], Ranks]]:
    """Yield the ranks of the valid positives of each entry, with the indices of the entries.

    Args:
        view: computes the matches of names with background samples.
        modality: modality of the samples.
        names: index of the name of each entry.
        latents: latent of each entry.
        positive: matches of the name with the top samples.
        valid: which of `positive` are samples, not padding.
        silent: the background samples on which a latent is silent.
    """
    order = np.argsort(names, kind="stable")
    for block in blocks(len(order), 2 * silent.background + 8 * positive.shape[1]):
        here = order[block]
        asked, which = np.unique(names[here], return_inverse=True)
        matches = view.match_background(modality, asked)
        yield here, _ranks(matches, which, positive[here], valid[here], *silent.fires(latents[here]))


def _ranks(
    matches: Float[np.ndarray, "name background"],
    which: Int[np.ndarray, " entry"],
    positive: Float[np.ndarray, "entry positive"],
    valid: Bool[np.ndarray, "entry positive"],
    entry: Int[np.ndarray, " firing"],
    row: Int[np.ndarray, " firing"],
) -> Ranks:
    """Return the ranks among the background samples without those on which the latent fires.

    Args:
        matches: match of each name with every background sample.
        which: name of each entry.
        positive: matches of the positives.
        valid: which of `positive` are samples.
        entry: entry of each firing, ascending.
        row: background sample of each firing.
    """
    lost = np.isnan(matches)
    fired = matches[which[entry], row]
    count = np.bincount(entry, minlength=len(which))
    missing = lost.sum(axis=1)[which] - np.bincount(entry, np.isnan(fired), minlength=len(which))
    unknown = (missing > 0) | (np.isnan(positive) & valid).any(axis=1)
    ordered = torch.from_numpy(np.where(lost, np.inf, matches)).sort(dim=1).values[torch.from_numpy(which)]
    padded = np.full((len(which), int(count.max(initial=0))), np.inf)
    padded[entry, np.arange(len(entry)) - np.repeat(np.cumsum(count) - count, count)] = np.where(
        np.isnan(fired), np.inf, fired
    )
    own = torch.from_numpy(padded).sort(dim=1).values
    values = torch.from_numpy(np.ascontiguousarray(np.where(np.isnan(positive), np.inf, positive)))
    negatives = matches.shape[1] - count
    below, upto = (
        np.minimum(_upto(ordered, values, right) - _upto(own, values, right), negatives[:, None])
        for right in (False, True)
    )
    return Ranks(positive, valid, below, upto, np.where(unknown, np.nan, negatives))


def _upto(ordered: torch.Tensor, values: torch.Tensor, right: bool) -> Float[np.ndarray, "entry positive"]:
    return torch.searchsorted(ordered, values, right=right).numpy().astype(np.float64)
