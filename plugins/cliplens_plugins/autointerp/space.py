"""Represent samples and words as unit vectors in the embedding space that both towers share."""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cliplens.records import Evidence, Exemplars
from cliplens.sites import Modality

Rows = Float[np.ndarray, "row d"]
_BLOCK_NUMBERS = 4_000_000
"""Approximate number of float64 values in a block of a computation (32 MB)."""
_LEAST = 1e-12
"""Smallest norm by which a row is divided, so that zero rows stay zero."""


class UnitRows:
    """Rows of norm 1 minus a centre, in float64. They are kept as they were given, and made when they are asked for.

    >>> UnitRows(torch.tensor([[3.0, 4.0], [0.0, 2.0]]))[np.array([1, 0])]
    array([[0. , 1. ],
           [0.6, 0.8]])
    """

    def __init__(self, acts: Float[Tensor, "row d"], centre: Float[np.ndarray, " d"] | None = None) -> None:
        self._acts, self._centre = acts.detach().cpu().numpy(), centre
        self.shape = self._acts.shape
        self._norms = np.ones(len(acts))
        for block in blocks(*self.shape):
            self._norms[block] = np.maximum(np.linalg.norm(self._acts[block].astype(np.float64), axis=1), _LEAST)

    def __len__(self) -> int:
        return len(self._acts)

    def __getitem__(self, at: Int[np.ndarray, "*place"]) -> Float[np.ndarray, "*place d"]:
        rows = self._acts[at].astype(np.float64)
        rows /= self._norms[at][..., None]
        if self._centre is not None:
            rows -= self._centre
        return rows


Seen = tuple[Exemplars, UnitRows, Float[np.ndarray, "background d"]]


def array(acts: Float[Tensor, "row d"]) -> Rows:
    """Convert to a float64 numpy array."""
    return acts.detach().cpu().double().numpy()


def unit_array(acts: Float[Tensor, "row d"]) -> Rows:
    """Return the rows divided by their L2 norms as a float64 numpy array of its own."""
    return make_unit(acts.detach().to("cpu", torch.float64, copy=True).numpy())


def unit(acts: Rows) -> Rows:
    """Divide each row by its L2 norm; zero rows stay zero."""
    return make_unit(acts.copy())


def make_unit(acts: Rows) -> Rows:
    """Do the same in place, a few rows at a time; return the array."""
    for block in blocks(len(acts), acts.shape[1]):
        acts[block] /= np.maximum(np.linalg.norm(acts[block], axis=1, keepdims=True), _LEAST)
    return acts


def blocks(count: int, numbers_each: int) -> Iterator[slice]:
    """Return slices over `count` items such that a block, at `numbers_each` float64 values per item, stays small.

    >>> list(blocks(5, 2_000_000))
    [slice(0, 2, None), slice(2, 4, None), slice(4, 6, None)]
    """
    step = max(1, _BLOCK_NUMBERS // max(numbers_each, 1))
    return (slice(start, start + step) for start in range(0, count, step))


def exemplars_of(evidence: Evidence, modality: Modality) -> Exemplars | None:
    """Return the exemplars of a modality; None if there are none."""
    return evidence.images if modality == "image" else evidence.texts


def samples(evidence: Evidence, modality: Modality) -> Seen | None:
    """Return the exemplars of a modality, their unit embeddings and the unit embeddings of the background.

    Return None if exemplars or their embeddings are missing. Without a background, the exemplars of all latents are
    used as the background.
    """
    exemplars = exemplars_of(evidence, modality)
    acts = evidence.image_acts if modality == "image" else evidence.text_acts
    if exemplars is None or acts is None or not len(exemplars.pairs):
        return None
    apart = None if evidence.background_acts is None else evidence.background_acts.of(modality)
    return exemplars, UnitRows(acts), unit_array(acts if apart is None or not len(apart) else apart)


def word_rows(evidence: Evidence) -> Rows | None:
    """Return unit embeddings of the vocabulary, centred on their mean; None without a vocabulary."""
    if evidence.vocabulary_acts is None or not len(evidence.vocabulary_acts):
        return None
    acts = unit_array(evidence.vocabulary_acts)
    return make_unit(acts - acts.mean(axis=0)) if len(acts) > 1 else acts


def top_of(exemplars: Exemplars, latent: int) -> Int[np.ndarray, " sample"]:
    """Return the indices of a latent's top samples, strongest first."""
    at = exemplars.at[latent]
    return at[at >= 0]


def named_from(exemplars: Exemplars, alive: Bool[np.ndarray, " d_sae"], at_least: int) -> Int[np.ndarray, " latent"]:
    """Return the living latents with at least `at_least` top samples."""
    return np.flatnonzero(alive & ((exemplars.at >= 0).sum(axis=1) >= at_least))


def filled(at: Int[np.ndarray, "latent top"]) -> Int[np.ndarray, "latent used"]:
    """Drop trailing columns in which no latent has a sample."""
    used = np.flatnonzero((at >= 0).any(axis=0))
    return at[:, : used[-1] + 1 if len(used) else 0]


def directions(
    exemplars: Exemplars, latents: Int[np.ndarray, " latent"], acts: UnitRows, centre: Float[np.ndarray, " d"]
) -> Float[np.ndarray, "latent d"]:
    """Return the mean of each latent's top samples, weighted by activation, minus `centre`, with norm 1."""
    at = filled(exemplars.at[latents])
    # The weights of a latent whose activations are all zero would sum to zero.
    weights = np.where(at >= 0, np.abs(exemplars.values[latents, : at.shape[1]]) + 1e-12, 0.0)
    weights /= weights.sum(axis=1, keepdims=True)
    means = np.empty((len(latents), acts.shape[1]))
    for block in blocks(len(latents), at.shape[1] * acts.shape[1]):
        means[block] = (weights[block, None, :] @ acts[at[block]])[:, 0] - centre
    return make_unit(means)


class SilentSamples:
    """Background samples of one modality on which each latent is silent.

    If the codes of the background are not known, every latent counts as silent on the whole background.
    """

    def __init__(self, evidence: Evidence, modality: Modality) -> None:
        codes = None if evidence.background_codes is None else evidence.background_codes.of(modality)
        latents = np.empty(0, np.int64) if codes is None else codes.latents.cpu().numpy()
        rows = np.empty(0, np.int64) if codes is None else codes.rows.cpu().numpy()
        order = np.argsort(latents, kind="stable")
        self._rows = rows[order]
        self._starts = np.searchsorted(latents[order], np.arange(evidence.d_sae + 1))
        self.background = len(evidence.background)

    def of(self, latent: int) -> Int[np.ndarray, " silent"]:
        """Return the indices of the background samples on which a latent is silent."""
        return np.flatnonzero(self.mask(np.array([latent]))[0])

    def mask(self, latents: Int[np.ndarray, " latent"]) -> Bool[np.ndarray, "latent background"]:
        """Return on which background samples each of the given latents is silent."""
        silent = np.ones((len(latents), self.background), dtype=bool)
        silent[self.fires(latents)] = False
        return silent

    def fires(
        self, latents: Int[np.ndarray, " latent"]
    ) -> tuple[Int[np.ndarray, " firing"], Int[np.ndarray, " firing"]]:
        """Return where the given latents fire: the place of the latent in `latents`, ascending, and the sample."""
        counts = self._starts[latents + 1] - self._starts[latents]
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return np.repeat(np.arange(len(latents)), counts), self._rows[np.repeat(self._starts[latents], counts) + within]

    @property
    def counts(self) -> Int[np.ndarray, " d_sae"]:
        """Number of background samples on which each latent is silent."""
        return self.background - np.diff(self._starts)
